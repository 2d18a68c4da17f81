"""GETURL POSTURL BODY with httpx: prints "STATUS BODY" for each answer."""
import sys

import httpx

get, post, body = sys.argv[1:]
with httpx.Client(timeout=20) as client:
    for answer in (
        client.get(get),
        client.post(post, content=body.encode(), headers={"Content-Type": "application/json"}),
    ):
        print(answer.status_code, answer.text)
