"""GETURL POSTURL BODY with the standard library's urllib: prints "STATUS BODY" for each answer."""
import sys
import urllib.request

get, post, body = sys.argv[1:]
requests = [
    urllib.request.Request(get),
    urllib.request.Request(post, data=body.encode(), headers={"Content-Type": "application/json"}),
]
for request in requests:
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(answer.status, answer.read().decode())
