// Chats, and the two places where they are kept: the server, which shares them with `edgellm chats`, or this browser.
//
// A message is `dirty` until it is saved, and `busy` while it may still be refused or go on; `id` is its row's.

const now = () => new Date().toISOString();
const beginning = (text) => { const line = text.split(/\s+/).filter(Boolean).join(" "); return line.length > 60 ? `${line.slice(0, 59)}…` : line; };

function newMessage(role, content, more = {}) {
  return {id: null, role, content, finish_reason: "", hidden: false, dirty: true, busy: false, ...more};
}

function newChat() {
  return {
    id: null, title: "", model: null, system: $("system").dataset.default || null, last: null, updated: null, messages: [],
    isPrivate: !$("save").checked, saving: Promise.resolve(), n_saving: 0, n_again: 0, kept: "",
  };
}

class ServerChats {
  where = "Saved on the server\u2019s machine, together with those of edgellm chat.";
  async list(words, limit) { return (await ask(`/chats?limit=${limit}&search=${encodeURIComponent(words)}`)).chats; }
  get(id) { return ask(`/chats/${encodeURIComponent(id)}`); }
  begin(content, more) { return tell("POST", "/chats", content, more); }
  add(id, content, more) { return tell("POST", `/chats/${id}/messages`, content, more); }
  change(id, content) { return tell("PATCH", `/chats/${id}`, content); }
  remove(id) { return tell("DELETE", `/chats/${id}`); }
}

const CHAT_KEY = "edgellm-chat-";

// The same, in the browser's storage: each chat under a key of its own, so that two tabs do not overwrite each other's.
class BrowserChats {
  where = "Saved in this browser only; the server keeps no chats.";
  async list(words, limit) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (text) => wanted.every((word) => text.toLowerCase().includes(word));
    const ids = Object.keys(localStorage).filter((key) => key.startsWith(CHAT_KEY)).map((key) => key.slice(CHAT_KEY.length));
    const readable = ids.flatMap((id) => { try { return [this.read(id)]; } catch { return []; } });
    return readable.map((chat) => {
      const found = wanted.length ? chat.messages.findLast((message) => has(message.content)) : null;
      return {...this.summary(chat), excerpt: found ? beginning(found.content) : "", isFound: found || has(chat.title)};
    }).filter((chat) => chat.isFound).sort((a, b) => a.updated < b.updated ? 1 : -1).slice(0, limit);
  }
  async get(id) { return {...this.read(id), ...this.summary(this.read(id))}; }
  async begin({model, system, messages, title}) {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(3)), (n) => n.toString(16).padStart(2, "0")).join("");
    return this.write({id, model, system, title: title ?? "", created: now(), next: 1, messages: []}, messages);
  }
  async add(id, {last, after, messages}) {
    const chat = this.read(id);
    if ((chat.messages.at(-1)?.id ?? null) !== last) throw new Refused(409, {message: "the chat has changed meanwhile", code: "chat-changed"});
    chat.messages.splice(chat.messages.findIndex((message) => message.id === after) + 1);
    return this.write(chat, messages);
  }
  async change(id, {hidden_through, ...more}) {
    const chat = Object.assign(this.read(id), more);
    const end = chat.messages.findIndex((message) => message.id === hidden_through);
    for (const message of chat.messages.slice(0, end + 1)) message.hidden = 1;
    return this.write(chat, []);
  }
  async remove(id) { localStorage.removeItem(CHAT_KEY + id); }
  read(id) {
    const text = localStorage.getItem(CHAT_KEY + id);
    if (text === null) throw new Refused(404, `there is no chat ${id}`);
    return JSON.parse(text);
  }
  write(chat, messages) {
    const added = messages.map((message) => ({...message, id: chat.next++, created: now()}));
    chat.messages.push(...added);
    chat.updated = now();
    try {
      localStorage.setItem(CHAT_KEY + chat.id, JSON.stringify(chat));
    } catch {
      throw new Error("this browser has no room for more chats; export and delete some");
    }
    return {...this.summary(chat), ids: added.map((message) => message.id)};
  }
  summary({messages, next, ...chat}) {
    const first = messages.find((message) => message.role === "user");
    return {...chat, title: chat.title || beginning(first?.content ?? ""), n_messages: messages.length};
  }
}

let chats = new BrowserChats(), chat = null;
const unsaved = new Set();

// Saves of a chat come one after the other. One that fails is tried again when the server is there.
function save(which) {
  if (which.isPrivate) return;
  which.n_saving += 1;
  which.saving = which.saving.then(() => saved(which)).finally(() => { which.n_saving -= 1; }).then((notice) => {
    unsaved.delete(which);
    showUnsaved("");
    if (notice) showTrouble(notice);
    refreshList();
  }, (error) => {
    unsaved.add(which);
    showUnsaved(`Not saved yet: ${error.message}`);
  });
}

function saveAll() {
  for (const each of unsaved) save(each);
}

async function saved(which, more) {
  const {messages} = which, first = messages.findIndex((message) => message.dirty);
  const busy = messages.findIndex((message) => message.busy);
  const rows = first < 0 ? [] : messages.slice(first, busy < 0 ? undefined : busy).filter((message) => message.content);
  const system = which.system ?? ownSettings(which.model).system;
  const settings = {model: which.model, system};
  try {
    if (rows.length) await addRows(which, first, rows, settings, more);
    if (which.id && which.kept !== JSON.stringify(settings)) {
      await chats.change(which.id, settings);
      which.kept = JSON.stringify(settings);
    }
    return "";
  } catch (error) {
    for (const row of rows) row.dirty = true;
    if (!which.id || !(error instanceof Refused) || ![404, 409].includes(error.status)) throw error;
    detach(which);
    await saved(which);
    return "This chat was changed elsewhere meanwhile. What you see here is saved as a chat of its own.";
  }
}

async function addRows(which, first, rows, settings, more) {
  for (const row of rows) row.dirty = false;
  const messages = rows.map(({role, content, finish_reason, hidden, calls}) =>
    ({role, content, finish_reason, hidden: Boolean(hidden), ...(calls?.length && {calls})}));
  const reply = which.id
    ? await chats.add(which.id, {last: which.last, after: which.messages[first - 1]?.id ?? null, messages}, more)
    : await chats.begin({...settings, title: which.title || undefined, messages}, more);
  if (!which.id) which.kept = JSON.stringify(settings);
  reply.ids.forEach((id, index) => { rows[index].id = id; });
  Object.assign(which, {id: reply.id, title: reply.title, updated: reply.updated, last: reply.ids.at(-1)});
  if (which === chat) showTitle();
}

// The chat as a new one, none of whose messages is saved.
function detach(which) {
  Object.assign(which, {id: null, last: null, kept: ""});
  for (const message of which.messages) Object.assign(message, {id: null, dirty: true});
}

// -- as files, in the forms of `edgellm chats export`

function asMarkdown(which) {
  const parts = exported(which).map(({role, content, calls}) => `\n## ${role}\n\n${callsAsMarkdown(calls)}${content.trim()}\n`);
  return [`# A chat with ${which.model}\n`, ...parts].join("");
}

const asJson = (which) => `${JSON.stringify({model: which.model, messages: exported(which)}, null, 2)}\n`;

function exported(which) {
  const head = which.system ? [{role: "system", content: which.system}] : [];
  return [...head, ...which.messages.filter(({content}) => content).map(({role, content, calls}) => ({role, content, ...(calls?.length && {calls})}))];
}

function fileName(which, ending) {
  const words = which.title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.join("-").slice(0, 50) || `chat-${which.id ?? "new"}`}.${ending}`;
}
