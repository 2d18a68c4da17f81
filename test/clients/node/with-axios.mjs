// GETURL POSTURL BODY with axios, which reads the environment: prints "STATUS BODY" for each answer.
import axios from "axios";

const [get, post, body] = process.argv.slice(2);
const asText = { responseType: "text", transformResponse: (text) => text };
const answers = [
  () => axios.get(get, asText),
  () => axios.post(post, body, { ...asText, headers: { "Content-Type": "application/json" } }),
];
for (const ask of answers) {
  const answer = await ask();
  console.log(answer.status, answer.data);
}
