"""Settings of image."""

from pydantic import AnyHttpUrl, Field, SecretStr
from slipway_kit.settings import DatabaseSettings, Port, RedisSettings, Seconds, TokenSettings

MEBIBYTE = 1024 * 1024


class Settings(DatabaseSettings, RedisSettings, TokenSettings):
    port: Port = Field(3003, description="a port between 1 and 65535", examples=["3003"])
    # Who may call. As text: a list would have to be JSON in the environment.
    service_callers: str = Field(
        "api", description="services, separated by commas, or nothing: then nobody is asked which", examples=["api"]
    )
    s3_endpoint: AnyHttpUrl = Field(
        description="the URL of the object store", examples=["https://minio.infrastructure.svc:9000"]
    )
    s3_bucket: str = Field(min_length=3, max_length=63, description="the name of a bucket", examples=["images"])
    # Given, or the client would ask the store for it first.
    s3_region: str = Field("us-east-1", min_length=1, description="the region of the bucket", examples=["us-east-1"])
    s3_access_key: SecretStr = Field(min_length=3, description="the access key of the object store")
    s3_secret_key: SecretStr = Field(min_length=8, description="the secret key of the object store")
    s3_connect_timeout: Seconds = Field(2, description="seconds, above 0, at most 600", examples=["2"])
    # Twice this (there is one more try) is less than the gateway waits.
    s3_read_timeout: Seconds = Field(6, description="seconds, above 0, at most 600", examples=["6"])
    upload_max_bytes: int = Field(
        12 * MEBIBYTE,
        ge=1024,
        le=1024**3,
        description="bytes of one image, 1024 to 1073741824",
        examples=["12582912"],
    )
    # Pillow's own limit is 89 megapixels: above it, it warns and then refuses by itself.
    upload_max_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="width times height, 1 to 89000000", examples=["50000000"]
    )
    # Bodies that arrive at a time. All but a few are temporary files: this times upload_max_bytes has to fit into /tmp.
    upload_receiving: int = Field(48, ge=1, le=10_000, description="uploads at a time, 1 to 10000", examples=["48"])
    # The first few of them wait in memory, which costs a quarter less: this times upload_max_bytes, for good.
    upload_in_memory: int = Field(4, ge=0, le=1000, description="uploads at a time, 0 to 1000", examples=["4"])
    upload_receive_seconds: Seconds = Field(
        120, description="seconds for one body, above 0, at most 600", examples=["120"]
    )
    # Connections to the store that write. More would share the same network and disk.
    upload_storing: int = Field(6, ge=1, le=256, description="uploads at a time, 1 to 256", examples=["6"])
    upload_wait_seconds: Seconds = Field(30, description="seconds, above 0, at most 600", examples=["30"])
    # A download holds a connection to the store for as long as its client reads.
    downloads: int = Field(32, ge=1, le=1000, description="downloads at a time, 1 to 1000", examples=["32"])
    quota_bytes: int = Field(
        2 * 1024**3, ge=1, description="bytes that one user may keep, 1 or more", examples=["2147483648"]
    )
    quota_images: int = Field(1000, ge=1, description="images that one user may keep, 1 or more", examples=["1000"])
    # Variants that are made at a time, each in a thread and in memory of its own.
    variant_rendering: int = Field(1, ge=1, le=64, description="pictures at a time, 1 to 64", examples=["1"])
    # What the largest picture may take while it is decoded. Times variant_rendering, and 190 MiB for everything else,
    # it has to fit into the memory of the pod. What would take more is refused when it is uploaded.
    variant_memory_bytes: int = Field(
        104 * MEBIBYTE,
        ge=MEBIBYTE,
        le=16 * 1024**3,
        description="bytes of memory for one picture, 1048576 to 17179869184",
        examples=["109051904"],
    )
    # Less than the gateway waits for the first byte of an answer.
    variant_wait_seconds: Seconds = Field(8, description="seconds, above 0, at most 600", examples=["8"])
    # Long after the slowest upload: what has no row by then will have none.
    sweep_age_seconds: int = Field(3600, ge=0, le=31_536_000, description="seconds, 0 to 31536000", examples=["3600"])

    @property
    def callers(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.service_callers.split(",") if name.strip())
