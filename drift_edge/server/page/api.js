// The server's routes (docs/server.md).

import { find } from "./dom.js";

/** What the server refused, in its own words. */
export class ApiError extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let asking = null;

/** Ask the person for the key; all requests that need one share one dialog. */
function askForKey() {
  asking ??= new Promise((done) => {
    const dialog = find("#key");
    const text = find("#key-text");
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const given = dialog.returnValue === "use" ? text.value.trim() : "";
        text.value = "";
        if (given) sessionStorage.setItem("key", given);
        done(given !== "");
      },
      { once: true },
    );
    dialog.returnValue = ""; // that of the last time
    dialog.showModal();
  });
  return asking;
}

async function send(method, path, body, signal) {
  const key = sessionStorage.getItem("key");
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is drift-edge serve still running?");
  }
  if (reply.ok) return reply;
  if (reply.status === 401 && (await askForKey())) return send(method, path, body, signal);
  let told;
  try {
    told = (await reply.json()).error;
  } catch {
    told = { message: `The server answered ${reply.status}.` };
  }
  throw new ApiError(told.message, reply.status, told.code);
}

/** The value of a reply. */
export async function ask(method, path, body, signal) {
  return (await send(method, path, body, signal)).json();
}

/** The chunks of a stream. */
export async function* stream(path, body, signal) {
  const reply = await send("POST", path, { ...body, stream: true }, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection broke before the answer had ended.");
    }
    if (part.done) throw new ApiError("The server ended the answer early.");
    const events = (rest + part.value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data:")) continue;
      const data = event.slice(5).trim();
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 0, chunk.error.code);
      yield chunk;
    }
  }
}
