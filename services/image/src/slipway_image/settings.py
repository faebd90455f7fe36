"""Settings of image."""

from pydantic import AnyHttpUrl, Field, SecretStr
from slipway_kit.settings import DatabaseSettings, Port, Seconds, TokenSettings


class Settings(DatabaseSettings, TokenSettings):
    port: Port = Field(3003, description="a port between 1 and 65535", examples=["3003"])
    s3_endpoint: AnyHttpUrl = Field(
        description="the URL of the object store", examples=["http://minio.infrastructure.svc:9000"]
    )
    s3_bucket: str = Field(min_length=3, max_length=63, description="the name of a bucket", examples=["images"])
    # Given, or the client would ask the store for it first.
    s3_region: str = Field("us-east-1", min_length=1, description="the region of the bucket", examples=["us-east-1"])
    s3_access_key: SecretStr = Field(min_length=3, description="the access key of the object store")
    s3_secret_key: SecretStr = Field(min_length=8, description="the secret key of the object store")
    s3_connect_timeout: Seconds = Field(2, description="seconds, above 0, at most 600", examples=["2"])
    s3_read_timeout: Seconds = Field(10, description="seconds, above 0, at most 600", examples=["10"])
    upload_max_bytes: int = Field(
        12 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="bytes of one image, 1024 to 1073741824",
        examples=["12582912"],
    )
    # Pillow's own limit is 89 megapixels: above it, it warns and then refuses by itself.
    upload_max_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="width times height, 1 to 89000000", examples=["50000000"]
    )
    # Bodies that arrive at a time. Each is a temporary file: this times upload_max_bytes has to fit into /tmp.
    upload_receiving: int = Field(48, ge=1, le=10_000, description="uploads at a time, 1 to 10000", examples=["48"])
    upload_receive_seconds: Seconds = Field(
        120, description="seconds for one body, above 0, at most 600", examples=["120"]
    )
    # Images that are checked and stored at the same time. Each is held in memory by the S3 client, as a whole.
    upload_storing: int = Field(6, ge=1, le=256, description="uploads at a time, 1 to 256", examples=["6"])
    upload_wait_seconds: Seconds = Field(30, description="seconds, above 0, at most 600", examples=["30"])
    # A download holds a connection to the store for as long as its client reads.
    downloads: int = Field(32, ge=1, le=1000, description="downloads at a time, 1 to 1000", examples=["32"])
