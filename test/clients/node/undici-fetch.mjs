// GETURL POSTURL BODY with undici's fetch and EnvHttpProxyAgent, which reads the environment: prints "STATUS BODY" for each answer.
import { EnvHttpProxyAgent, fetch } from "undici";

const [get, post, body] = process.argv.slice(2);
const dispatcher = new EnvHttpProxyAgent();
const headers = { "Content-Type": "application/json" };
for (const [url, init] of [[get, {}], [post, { method: "POST", headers, body }]]) {
  const answer = await fetch(url, { ...init, dispatcher });
  console.log(answer.status, await answer.text());
}
await dispatcher.close();
