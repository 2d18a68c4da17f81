// GETURL POSTURL BODY with undici's request and a ProxyAgent, which is told the proxy: prints "STATUS BODY" for each answer.
import { Agent, ProxyAgent, request } from "undici";

const [get, post, body] = process.argv.slice(2);
const proxy = process.env.https_proxy;
const dispatcher = proxy ? new ProxyAgent(proxy) : new Agent();
const headers = { "Content-Type": "application/json" };
for (const [url, init] of [[get, {}], [post, { method: "POST", headers, body }]]) {
  const answer = await request(url, { ...init, dispatcher });
  console.log(answer.statusCode, await answer.body.text());
}
await dispatcher.close();
