// Messages as the page shows them, and answers while they are computed.

// Of a long chat the last ones are shown; a button shows more.
const SHOWN = 60, MORE = 200;
const N_SEEDS = 2 ** 32 - 1;
const NEAR = 60;  // pixels from the bottom that count as the bottom
let answering = null;  // the answer under way, of this chat or of another one
let n_shown = SHOWN;

const log = $("log");
const atBottom = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
const toBottom = () => { log.scrollTop = log.scrollHeight; };

// Change the log; only who reads at its end is taken along.
function keepPlace(change) {
  const follows = atBottom();
  change();
  if (follows) toBottom();
  $("latest").hidden = atBottom();
}
log.addEventListener("scroll", () => { $("latest").hidden = atBottom(); }, {passive: true});

function showChat(follows = true) {
  const {messages} = chat, first = Math.max(0, messages.length - n_shown);
  const nodes = messages.slice(first).map(viewOf);
  const seen = messages.findIndex((message) => !message.hidden);
  if (seen > first) nodes.splice(seen - first, 0, element("p", "divider", "The model no longer sees the messages above."));
  if (first > 0) nodes.unshift(button(`Show earlier messages (${number(first)})`, showEarlier, "earlier"));
  const place = log.scrollTop;
  log.replaceChildren(...nodes);
  $("empty").hidden = messages.length > 0;
  showTitle();
  if (!follows) { log.scrollTop = place; return; }
  toBottom();
  requestAnimationFrame(toBottom);  // heights of what was never drawn are only estimated
}

function showEarlier() {
  const fromBottom = log.scrollHeight - log.scrollTop;
  n_shown += MORE;
  showChat(false);
  requestAnimationFrame(() => { log.scrollTop = log.scrollHeight - fromBottom; });
}

function viewOf(message) {
  message.view ??= message.role === "user" ? questionView(message) : answerView(message);
  return message.view.box;
}

const indexOf = (message) => chat.messages.indexOf(message);

function questionView(message) {
  const text = element("div", "text", message.content);
  text.dir = "auto";
  const tools = element("div", "tools",
    button("Edit", () => edit(message)),
    button("Copy", (self) => copy(message.content, self)),
    button("Answer", () => generate({from: indexOf(message) + 1}), "for-last"));
  return {box: element("article", "message user", text, tools), text, tools};
}

function edit(message, changed = message.content) {
  const {box, text, tools} = message.view, field = element("textarea");
  field.value = changed;
  field.rows = Math.min(12, changed.split("\n").length + 1);
  field.setAttribute("aria-label", "Edit your message");
  const close = () => { form.replaceWith(text); tools.hidden = false; };
  const form = element("form", "edit", field, element("div", "row", element("button", "main", "Ask again"), button("Cancel", close)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const question = field.value.trim();
    if (!question || answering) return;
    close();
    generate({from: indexOf(message), question, refused: () => edit(message, question)});
  });
  field.addEventListener("keydown", (event) => {
    if (isEnter(event)) { event.preventDefault(); form.requestSubmit(); }
    if (event.key === "Escape" && !event.isComposing) { event.stopPropagation(); close(); }
  });
  (box.querySelector("form") ?? text).replaceWith(form);
  tools.hidden = true;
  field.focus();
}

const isEnter = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

function answerView(message) {
  const thought = element("div", "thought"), thoughts = element("details", "thoughts", element("summary", "", "Thoughts"), thought);
  thoughts.hidden = true;
  thought.dir = "auto";
  const text = element("div", "text markdown"), calls = element("div", "calls"), checked = element("div", "checked"), notice = element("div", "notice"), meta = element("div", "meta");
  const goOn = button("Continue", () => generate({from: chat.messages.length, continued: message}), "for-last go-on");
  const tools = element("div", "tools",
    button("Copy", (self) => copy(message.content, self)),
    button("Regenerate", () => generate({from: indexOf(message)}), "for-last"), goOn);
  const box = element("article", "message answer", thoughts, calls, text, checked, notice, meta, tools);
  const view = {box, text, calls, checked, thoughts, thought, notice, meta, goOn, markdown: new MarkdownView(text)};
  drawAnswer(message, view);
  return view;
}

function drawAnswer(message, view = message.view) {
  view.box.classList.toggle("busy", message.busy);
  view.markdown.show(shownText(message), message.busy);
  drawChecked(message, view);
  drawCalls(message, view);
  const thoughts = message.thoughts ?? "";
  view.thoughts.hidden = !thoughts;
  if (view.thought.textContent !== thoughts) view.thought.textContent = thoughts;
  view.notice.textContent = message.busy ? "" : noticeOf(message);
  view.meta.textContent = message.busy ? "" : message.numbers ?? "";
  view.goOn.hidden = Boolean(message.documents || message.calls?.length) || message.finish_reason === "stop" || message.finish_reason === "repetition" || !message.content;
}

function drawChecked(message, view) {
  const shown = message.busy ? undefined : message.documents;
  if (view.shown === shown) return;
  view.shown = shown;
  view.checked.replaceChildren(...(shown ? checkedView(message) : []));
  if (shown) linkNumbers(view.text, shown);
}

function noticeOf(message) {
  const reasons = {
    length: "The answer reached a limit: the most tokens of the settings, or the end of the context.",
    context: "The answer reached the end of the context.",
    time: "The answer was ended: its time was over.",
    repetition: "Stopped by the loop guard: the answer repeated itself.",
    interrupted: "Stopped.",
  };
  const reason = message.notice ?? reasons[message.finish_reason] ?? "";
  if (message.content) return reason;
  return `${reason} The model gave no text. Regenerate the answer, or ask in other words.`.trim();
}

// -- asking

// An answer while it is computed.
class Answer {
  constructor(owner, model, collection, message) {
    Object.assign(this, {chat: owner, model, collection, name: collection ? `${model}@${collection}` : model, message, prefix: message.content, pieces: [], final: null});
    this.controller = new AbortController();
    this.begun = performance.now();
    this.first = this.last = null;
    this.isDrawn = true;
  }
  add(text, isThought) {
    this.last = performance.now();
    this.first ??= this.last;
    this.pieces.push([text, isThought]);
    if (isThought) this.message.thoughts = (this.message.thoughts ?? "") + text;
    else this.message.content += text;
    this.drawSoon();
  }
  called(call) {
    this.message.calls = [...(this.message.calls ?? []), call];
    this.drawSoon();
  }
  drawSoon() {
    if (!this.isDrawn) return;
    this.isDrawn = false;
    const draw = () => { if (!this.isDrawn) this.draw(); };
    if (document.hidden) setTimeout(draw, 250); else requestAnimationFrame(draw);
  }
  draw() {
    this.isDrawn = true;
    keepPlace(() => drawAnswer(this.message));
    this.tell();
  }
  // A loop is left out, so that it does not lead the next answer into the same one.
  keep(n) {
    const kept = this.pieces.slice(0, n), joined = (isThought) => kept.filter((piece) => piece[1] === isThought).map(([text]) => text).join("");
    this.message.content = this.prefix + joined(false);
    this.message.thoughts = joined(true);
  }
  get ttft() { return this.first === null ? null : (this.first - this.begun) / 1000; }
  get rate() {
    if (this.final?.timings?.predicted_per_second) return this.final.timings.predicted_per_second;
    return this.pieces.length > 2 ? (this.pieces.length - 1) / ((this.last - this.first) / 1000) : null;
  }
  get context() {
    const usage = this.final?.usage, n_ctx = modelStatus(this.model)?.n_ctx;
    return usage && n_ctx ? `context ${number(usage.total_tokens)}/${number(n_ctx)}` : "";
  }
  get numbers() {
    if (this.first === null) return "";
    const count = this.final?.usage?.completion_tokens ?? this.pieces.length;
    const parts = [`${number(count)} token${count === 1 ? "" : "s"}`, `${rate(this.rate)} tok/s`, `first token ${seconds(this.ttft)}`, this.context, this.name];
    return parts.filter(Boolean).join(", ");
  }
  tell() {
    const model = modelStatus(this.model), parts = [];
    if (this.first === null && !this.final) {
      const waited = ((performance.now() - this.begun) / 1000).toFixed(0);
      parts.push(model && model.state !== "loaded" ? `loading ${this.model}` : model?.waiting ? "waiting for a slot" : this.collection ? `searching ${this.collection}` : "reading the prompt", `${waited} s`);
    } else if (this.first === null) {
      parts.push("no text");
    } else {
      parts.push(`${rate(this.rate)} tok/s`, `first token ${seconds(this.ttft)}`);
      $("rate").textContent = rate(this.rate);
      $("ttft").textContent = seconds(this.ttft);
    }
    if (this.context) parts.push(this.context);
    if (model?.resident_bytes) parts.push(`memory ${size(model.resident_bytes)}, ${size(latest.available_bytes)} available`);
    if (this.chat !== chat) parts.unshift("answering in another chat");
    $("live").textContent = parts.join("   ");
  }
}

// Ask for an answer after the first `from` messages. What stood there is replaced once the server takes the question;
// if it refuses, everything is as before, and `refused` puts the question back where it can be changed.
//
// `continued` is an answer that goes on.
async function generate({from, question = null, continued = null, refused = () => {}}) {
  const model = modelStatus($("model").value);
  if (answering || !model) return;
  const again = {from, question, continued, refused}, owner = chat, before = owner.messages;
  showTrouble("");
  let settings;
  try {
    settings = askedSettings();
  } catch (error) {
    showTrouble(error.message);
    refused();
    return;
  }
  // With a seed of the user's, the same question again needs the next one.
  owner.n_again = question === null && continued === null ? owner.n_again + 1 : 0;
  if (settings.seed !== undefined) settings.seed = (settings.seed + owner.n_again) % N_SEEDS;
  const asked = question === null ? [] : [newMessage("user", question, {busy: true})];
  const message = continued ?? newMessage("assistant", "", {model: model.name});
  Object.assign(message, {busy: true, notice: undefined});
  owner.messages = continued ? before : [...before.slice(0, from), ...asked, message];
  const answer = answering = new Answer(owner, model.name, collectionFor(model), message);
  showChat();
  drawAnswer(message);
  showBusy(true);
  announce("The model is answering.");
  let accepted = false, failure = null;
  try {
    const tools = continued ? [] : toolsFor(model, answer.collection);
    const fields = {model: answer.name, ...settings, ...(tools.length && {server_tools: tools})};
    const [path, content] = requestBody(owner, model, fields, continued);
    const reply = await request(path, {method: "POST", body: JSON.stringify(content), signal: answer.controller.signal});
    for await (const event of events(reply)) {
      if (event.error) throw new Refused(500, event.error);
      if (!accepted) {
        accepted = true;
        owner.model = model.name;
        for (const each of asked) each.busy = false;
        if (asked.length) save(owner);
      }
      take(answer, event);
    }
    if (!answer.final) throw new Unreachable("The server ended the answer early.");
  } catch (error) {
    failure = error;
  }
  answering = null;
  message.busy = false;
  if (!accepted) {
    owner.messages = before;
    if (continued) drawAnswer(message);
    if (owner === chat) showChat(atBottom());
    refuse(owner, failure, again);
  } else {
    finish(answer, failure);
    save(owner);
  }
  showBusy(false);
  poll();
}

function requestBody(owner, model, settings, continued) {
  const asked = {stream: true, ...settings, ...(owner.isPrivate && {private: true})};
  const seen = owner.messages.filter((message) => !message.hidden && message.content && (!message.busy || message.role === "user" || message === continued));
  if (model.kind === "completion") {
    return ["/v1/completions", {max_tokens: 512, ...asked, prompt: seen.map((message) => message.content).join("\n")}];
  }
  const head = owner.system === null ? [] : [{role: "system", content: owner.system}];
  return ["/v1/chat/completions", {...asked, messages: [...head, ...seen.map(({role, content}) => ({role, content}))]}];
}

function take(answer, event) {
  const choice = event.choices?.[0];
  if (choice?.delta?.reasoning_content) answer.add(choice.delta.reasoning_content, true);
  const text = choice?.delta?.content ?? choice?.text;
  if (text) answer.add(text, false);
  for (const ran of event.edgellm?.tools ?? []) answer.called(callOf(ran));
  if (!choice?.finish_reason) return;
  answer.final = event;
  answer.message.finish_reason = choice.finish_reason;
  const cut = event.edgellm;
  if (!cut) return;
  answer.message.documents = cut.documents;
  if (!cut.finish_reason) return;
  answer.message.finish_reason = cut.finish_reason;
  if (cut.finish_reason !== "repetition" || cut.kept_pieces === undefined) return;
  answer.keep(cut.kept_pieces);
  answer.message.notice = `Stopped by the loop guard: \u201c${cut.repeated}\u201d came back ${cut.repetitions} times.`;
}

function finish(answer, failure) {
  const {message} = answer;
  message.dirty = true;
  if (failure) {
    message.finish_reason = "interrupted";
    if (failure.name !== "AbortError") message.notice = `The answer is not whole: ${failure.message}`;
  }
  message.numbers = answer.numbers;
  if (message.documents && !answer.chat.isPrivate) rememberCited(message);
  answer.draw();
  announce(message.content || noticeOf(message));
}

// -- when the server does not take a question

function refuse(owner, failure, again) {
  $("live").textContent = "";
  announce("");
  if (failure.name === "AbortError") { again.refused(); $("live").textContent = "stopped before the answer began"; return; }
  const {n_prompt_tokens: n_prompt, n_ctx} = failure.facts ?? {};
  if (!n_ctx || failure.code !== "context_length_exceeded") {
    showTrouble(failure instanceof Unreachable ? `${failure.message} Your message is kept; send it again when the server is back.` : failure.message);
    again.refused();
    return;
  }
  const sizes = `${number(n_prompt)} tokens, and the context of the model holds ${number(n_ctx)}`;
  const dropped = oldest(owner, again, n_prompt, n_ctx);
  again.refused();
  if (!dropped) {
    showTrouble(`The message is too long: ${sizes}. Shorten it, or start the server with a larger --ctx-size.`);
    return;
  }
  showTrouble(`The chat is too long: ${sizes}.`, button(`Leave out the oldest messages (${number(dropped)}) and ask again`, () => {
    if (again.question !== null && $("question").value.trim() === again.question) { $("question").value = ""; grow(); }
    leaveOut(owner, dropped);
    generate(again);
  }));
}

// How many more messages to leave out, so that a quarter of the context at most is free for the answer; 0: it cannot be.
function oldest(owner, {from, question}, n_prompt, n_ctx) {
  const kept = owner.messages.slice(0, from), seen = kept.filter((message) => !message.hidden);
  const last = question === null ? seen.findLastIndex((message) => message.role === "user") : seen.length;
  const length = (text) => text.length + 16;
  const whole = seen.reduce((sum, message) => sum + length(message.content), 0) + length(question ?? "") + length(owner.system ?? "");
  const excess = whole * (n_prompt - n_ctx + Math.min(512, n_ctx / 4)) / n_prompt;
  let n = 0;
  for (let gone = 0; n < last && (gone < excess || seen[n].role !== "user"); n += 1) gone += length(seen[n].content);
  return n;
}

function leaveOut(owner, n) {
  const left = owner.messages.filter((message) => !message.hidden).slice(0, n);
  for (const message of left) message.hidden = true;
  const id = left.at(-1).id;
  if (owner.id && id !== null) {
    owner.saving = owner.saving.then(() => chats.change(owner.id, {hidden_through: id})).catch((error) => showUnsaved(`Not saved yet: ${error.message}`));
  }
}
