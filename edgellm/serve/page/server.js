// Requests to the server: the key, errors with their reasons, and streams of events.

const KEY = "edgellm-key";

// The server's refusal: `code`, and what it says of the request's sizes.
class Refused extends Error {
  constructor(status, error) {
    const text = typeof error === "string" ? error : error?.message;
    super(text || `the server answered with status ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.facts = typeof error === "object" && error !== null ? error : {};
  }
}

class Unreachable extends Error {}

async function request(path, options = {}) {
  const headers = {...options.headers};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (options.body) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, {...options, headers, cache: "no-store"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server cannot be reached.");
  }
  if (reply.ok) return reply;
  const answer = await reply.json().catch(() => ({}));
  // Meanwhile another request may have got a new key.
  if (reply.status === 401 && key === sessionStorage.getItem(KEY)) askForKey(key !== null);
  throw new Refused(reply.status, answer.error);
}

const ask = async (path, options) => (await request(path, options)).json();
const tell = async (method, path, content, more) =>
  (await request(path, {...more, method, body: content && JSON.stringify(content)})).json();

// A form with a file; `told` hears from 0 to 1 how much of it the server has.
function sendForm(path, form, told) {
  return new Promise((take, fail) => {
    const call = new XMLHttpRequest(), key = sessionStorage.getItem(KEY);
    call.open("POST", path);
    call.responseType = "json";
    if (key) call.setRequestHeader("Authorization", `Bearer ${key}`);
    call.upload.addEventListener("progress", ({loaded, total}) => told(total ? loaded / total : 0));
    call.addEventListener("load", () => {
      if (call.status < 300) { take(call.response); return; }
      if (call.status === 401) askForKey(key !== null);
      fail(new Refused(call.status, call.response?.error));
    });
    call.addEventListener("error", () => fail(new Unreachable("The server cannot be reached, or the file cannot be read.")));
    call.send(form);
  });
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    let value, done;
    try {
      ({value, done} = await reader.read());
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("The server went away.");
    }
    if (done) return;
    const blocks = (pending + value).split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      for (const line of block.split("\n")) {
        if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
      }
    }
  }
}

// -- the key

function askForKey(wasWrong) {
  sessionStorage.removeItem(KEY);
  if (wasWrong) $("key-error").textContent = "That key is not right.";
  $("chat").hidden = true;
  if ($("key-form").hidden) { $("key-form").hidden = false; $("key").focus(); }
}

function haveKey() {
  if ($("key-form").hidden) return;
  $("key-form").hidden = true;
  $("chat").hidden = false;
  $("question").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  // A header holds Latin-1 only; no key has anything else.
  const key = $("key").value.trim();
  $("key").value = $("key-error").textContent = "";
  if (!/^[\x21-\x7e]+$/.test(key)) { $("key-error").textContent = "That is no key."; return; }
  sessionStorage.setItem(KEY, key);
  poll();
});
