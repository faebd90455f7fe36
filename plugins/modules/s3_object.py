#!/usr/bin/python
"""Reads one object of an S3, or sees whether a bucket is there: with Python alone, on the host that can reach it."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ssl
import urllib.error
import urllib.parse
import urllib.request

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: s3_object
short_description: Reads one object of an S3
description:
  - Asks as the clients of the platform do, by path, signed (version 4), and over TLS that is verified.
  - What the S3 refuses is no failure but told in C(code); only an S3 that does not answer is one.
  - Changes nothing.
options:
  endpoint:
    description: URL of the S3, without a path.
    type: str
    required: true
  ca:
    description: Certificate of the CA that is believed, in PEM form.
    type: str
    required: true
  access_key:
    description: Key to sign with.
    type: str
    required: true
  secret_key:
    description: Its secret.
    type: str
    required: true
  bucket:
    description: Name of the bucket.
    type: str
    required: true
  object:
    description: Name of the object; with nothing, only the bucket is asked for.
    type: str
    default: ""
  region:
    description: Region that requests are signed for.
    type: str
    default: us-east-1
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 10
author: The slipway project
"""
EXAMPLES = r"""
- name: Read what the repository holds
  s3_object:
    endpoint: https://10.20.0.31:9000
    ca: "{{ secrets.ca_certificate }}"
    access_key: "{{ secrets.second_site_keys.backups.access_key }}"
    secret_key: "{{ secrets.second_site_keys.backups.secret_key }}"
    bucket: backups
    object: production/postgres/backup/postgres/backup.info
"""
RETURN = r"""
code:
  description: Empty, or the S3's code of the refusal, such as NoSuchKey or AccessDenied.
  type: str
  returned: always
content:
  description: The object, in base64.
  type: str
  returned: always
"""

EMPTY = hashlib.sha256(b"").hexdigest()
LARGEST = 16 * 2**20


def signed(url: str, access_key: str, secret_key: str, region: str, now: datetime.datetime) -> dict[str, str]:
    """The headers of a GET of `url` at the moment `now`, by AWS' signature of version 4."""
    parts = urllib.parse.urlsplit(url)
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": parts.netloc, "x-amz-content-sha256": EMPTY, "x-amz-date": moment}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = "\n".join(["GET", parts.path, parts.query, lines, names, EMPTY])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def address(endpoint: str, bucket: str, name: str) -> str:
    """Where the object is; without a name, where the bucket lists its first one."""
    if name:
        return endpoint + urllib.parse.quote(f"/{bucket}/{name}")
    return f"{endpoint}/{urllib.parse.quote(bucket)}/?list-type=2&max-keys=1"


def refusal(status: int, body: str) -> str:
    """The code in the XML of a refusal, as far as there is one."""
    return body.partition("<Code>")[2].partition("</Code>")[0] or f"HTTP {status}"


def main() -> None:
    """Ask once and tell what was answered."""
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "access_key": {"type": "str", "required": True, "no_log": True},
            "secret_key": {"type": "str", "required": True, "no_log": True},
            "bucket": {"type": "str", "required": True},
            "object": {"type": "str", "default": ""},
            "region": {"type": "str", "default": "us-east-1"},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    url = address(wanted["endpoint"], wanted["bucket"], wanted["object"])
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - a host's Python may be older than the controller's
    headers = signed(url, wanted["access_key"], wanted["secret_key"], wanted["region"], now)
    try:
        trust = ssl.create_default_context(cadata=wanted["ca"])
        asked = urllib.request.Request(url, headers=headers)  # noqa: S310 - the inventory's own endpoint
        with urllib.request.urlopen(asked, timeout=wanted["timeout"], context=trust) as answer:  # noqa: S310
            content = answer.read(LARGEST)
        module.exit_json(changed=False, code="", content=base64.b64encode(content).decode())
    except urllib.error.HTTPError as error:
        refused = refusal(error.code, error.read(LARGEST).decode(errors="replace"))
        module.exit_json(changed=False, code=refused, content="")
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        module.fail_json(msg=f"{wanted['endpoint']}: found no answer ({reason}), wanted an S3")


if __name__ == "__main__":
    main()
