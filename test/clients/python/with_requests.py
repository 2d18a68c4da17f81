"""GETURL POSTURL BODY with requests: prints "STATUS BODY" for each answer."""
import sys

import requests

get, post, body = sys.argv[1:]
with requests.Session() as session:
    for answer in (
        session.get(get, timeout=20),
        session.post(post, data=body.encode(), headers={"Content-Type": "application/json"}, timeout=20),
    ):
        print(answer.status_code, answer.text)
