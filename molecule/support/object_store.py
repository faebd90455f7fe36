"""What a test does at an object store, from inside of the cluster: these functions run in a pod."""

from __future__ import annotations

from typing import Any


def store(endpoint: str, ca: str, key: dict[str, str] | None, steps: list[list[str]]) -> list[str]:
    """In the cluster: take steps with a key (none: as anybody); for each what it gave, or the code of the refusal."""
    import io
    import ssl

    import minio
    import urllib3

    signed: dict[str, Any] = {"access_key": key["access_key"], "secret_key": key["secret_key"]} if key else {}
    pool = urllib3.PoolManager(ssl_context=ssl.create_default_context(cadata=ca))
    client = minio.Minio(endpoint=endpoint, secure=True, region="us-east-1", http_client=pool, **signed)

    def take(step: str, *names: str) -> str:
        if step == "list buckets":
            return " ".join(sorted(bucket.name for bucket in client.list_buckets()))
        if step == "make bucket":
            client.make_bucket(bucket_name=names[0])
        elif step == "remove bucket":
            client.remove_bucket(bucket_name=names[0])
        elif step == "list":
            return " ".join(sorted(str(found.object_name) for found in client.list_objects(bucket_name=names[0])))
        elif step == "put":
            content = names[2].encode()
            client.put_object(bucket_name=names[0], object_name=names[1], data=io.BytesIO(content), length=len(content))
        elif step == "put letter":
            content = names[2].encode()
            given: dict[str, Any] = {"content_type": "text/x-letter", "metadata": {"sender": "grandmother"}}
            data = io.BytesIO(content)
            client.put_object(bucket_name=names[0], object_name=names[1], data=data, length=len(content), **given)
        elif step == "stat":
            about = client.stat_object(bucket_name=names[0], object_name=names[1])
            sender = (about.metadata or {}).get("x-amz-meta-sender", "")
            return f"{about.etag} {about.version_id} {about.content_type} {sender}"
        elif step == "versions":
            prefix = names[1] if len(names) > 1 else ""
            listed = client.list_objects(bucket_name=names[0], prefix=prefix, recursive=True, include_version=True)
            marks = [found.is_delete_marker for found in listed]
            return f"{len(marks) - sum(marks)} objects, {sum(marks)} marks"
        elif step == "get":
            answer = client.get_object(bucket_name=names[0], object_name=names[1])
            with answer:
                return answer.read().decode()
        elif step == "get oldest":
            versions = client.list_objects(bucket_name=names[0], prefix=names[1], include_version=True)
            [oldest] = [found.version_id for found in versions if not found.is_delete_marker][-1:]
            answer = client.get_object(bucket_name=names[0], object_name=names[1], version_id=oldest)
            with answer:
                return answer.read().decode()
        elif step == "remove":
            client.remove_object(bucket_name=names[0], object_name=names[1])
        elif step == "list all":
            found = client.list_objects(bucket_name=names[0], prefix=f"{names[1]}/", recursive=True)
            return " ".join(sorted(str(one.object_name) for one in found))
        elif step == "damage":
            # Of the one object of that prefix. Once more puts it right again.
            [one] = client.list_objects(bucket_name=names[0], prefix=names[1], recursive=True)
            with client.get_object(bucket_name=names[0], object_name=str(one.object_name)) as answer:
                damaged = bytearray(answer.read())
            damaged[len(damaged) // 2] ^= 0xFF
            client.put_object(
                bucket_name=names[0],
                object_name=str(one.object_name),
                data=io.BytesIO(bytes(damaged)),
                length=len(damaged),
            )
        elif step == "empty":
            found = client.list_objects(bucket_name=names[0], prefix=f"{names[1]}/", recursive=True)
            for name in [str(one.object_name) for one in found]:
                client.remove_object(bucket_name=names[0], object_name=name)
        elif step == "open to all":
            rule = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},'
            rule += f'"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{names[0]}/*"]}}]}}'
            client.set_bucket_policy(bucket_name=names[0], policy=rule)
        return "done"

    answers = []
    for step in steps:
        try:
            answers.append(take(*step))
        except minio.error.S3Error as error:
            answers.append(str(error.code))
    return answers


def ask(url: str, ca: str) -> tuple[int, str]:
    """In the cluster: status and body of an answer over HTTP; -1 and the reason when there was none."""
    import ssl
    import urllib.error
    import urllib.request

    trust = ssl.create_default_context(cadata=ca or None)
    try:
        with urllib.request.urlopen(url, timeout=10, context=trust) as answer:  # noqa: S310 - a test's own URL
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except urllib.error.URLError as error:
        return -1, type(error.reason).__name__
