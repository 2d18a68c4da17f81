"""GETURL POSTURL BODY with aiohttp, which must be told to look at the environment: prints "STATUS BODY" for each answer."""
import asyncio
import sys

import aiohttp
from yarl import URL  # aiohttp would spell the query its own way


async def main(get, post, body):
    async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(total=20)) as session:
        async with session.get(URL(get, encoded=True)) as answer:
            print(answer.status, await answer.text())
        headers = {"Content-Type": "application/json"}
        async with session.post(URL(post, encoded=True), data=body.encode(), headers=headers) as answer:
            print(answer.status, await answer.text())


asyncio.run(main(*sys.argv[1:]))
