"""A bare FastAPI application: what each request costs before anybody has added anything. `python -m bench.bare PORT`"""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Answer(BaseModel):
    id: int
    name: str


app = FastAPI()


@app.get("/")
async def answer() -> Answer:
    return Answer(id=1, name="bare")


if __name__ == "__main__":
    # The server that the services have, without their middleware.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
