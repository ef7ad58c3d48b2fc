// The page itself: the list of chats, the open one, and what keys and buttons do.

const SEARCH_DELAY = 250;
let n_listed = 100, searching = 0, opening = 0, isOpenYet = false;

// -- the list

async function refreshList() {
  const words = $("search").value.trim();
  let found;
  try {
    found = await chats.list(words, n_listed);
  } catch (error) {
    $("list").replaceChildren(element("p", "hint", error.message));
    return;
  }
  if (words !== $("search").value.trim()) return;
  const nodes = found.map(listed);
  if (found.length === n_listed) nodes.push(button("Show more", () => { n_listed *= 2; refreshList(); }));
  if (!found.length) nodes.push(element("p", "hint", words ? "Nothing found." : "No chats yet."));
  $("list").replaceChildren(...nodes);
  followOther(found.find((each) => each.id === chat.id));
}

function listed(each) {
  const when = new Date(each.updated), isToday = when.toDateString() === new Date().toDateString();
  const date = isToday ? when.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}) : when.toLocaleDateString();
  const title = element("span", "name", each.title || "(no title)");
  title.dir = "auto";
  const entry = element("a", "", title, element("span", "when", date));
  if (each.excerpt) entry.append(element("span", "excerpt", each.excerpt));
  entry.href = `#${each.id}`;
  if (each.id === chat.id) entry.setAttribute("aria-current", "page");
  return entry;
}

// A terminal or another tab may have gone on with the open chat.
function followOther(theirs) {
  if (!theirs || answering?.chat === chat || unsaved.has(chat) || chat.n_saving) return;
  if (theirs.updated !== chat.updated || theirs.n_messages !== chat.messages.filter((message) => message.content).length) openChat(chat.id);
}

// -- the open chat

async function openChat(id) {
  const turn = opening += 1;
  let found;
  if (answering?.chat.id === id) found = answering.chat;
  else {
    try {
      found = opened(await chats.get(id));
    } catch (error) {
      if (turn === opening) { begin(); showTrouble(error.message); }
      return;
    }
  }
  if (turn === opening) turnTo(found);
}

function opened({id, title, model, system, updated, messages}) {
  // What this tab shows already stays as it is, with its thoughts and numbers.
  const cited = citedBefore();
  const before = new Map(chat.messages.map((message) => [message.id, message]));
  const known = messages.map((message) => {
    const same = chat.id === id ? before.get(message.id) : null;
    const known = same?.content === message.content ? same : newMessage(message.role, message.content, {documents: cited.get(message.content)});
    return Object.assign(known, message, {hidden: Boolean(message.hidden), dirty: false});
  });
  const kept = JSON.stringify({model, system});
  return {...newChat(), id, title, model, system, updated, messages: known, last: known.at(-1)?.id ?? null, isPrivate: false, kept};
}

function turnTo(found) {
  const isSame = chat?.id === found.id && found.id !== null;
  chat = found;
  if (!isSame) n_shown = SHOWN;
  if (writers().some((model) => model.name === chat.model)) $("model").value = chat.model;
  const own = ownSettings(chat.model ?? $("model").value).system;
  $("system").value = chat.system === own ? "" : chat.system ?? "";
  showOwnSettings();
  showTrouble("");
  $("live").textContent = "";
  showChat(!isSame || atBottom());
  for (const entry of $("list").querySelectorAll("a")) {
    if (entry.hash === `#${chat.id}`) entry.setAttribute("aria-current", "page");
    else entry.removeAttribute("aria-current");
  }
}

function begin() {
  opening += 1;
  history.replaceState(null, "", location.pathname);
  turnTo(newChat());
  $("question").focus();
}

function showTitle() {
  $("title").textContent = chat.title || "New chat";
  document.title = chat.title ? `${chat.title} \u00b7 edgellm` : "edgellm";
  if (chat.id && location.hash !== `#${chat.id}`) history.replaceState(null, "", `#${chat.id}`);
  $("menu").hidden = chat.messages.length === 0;
}

function rename() {
  $("menu").open = false;
  const field = element("input"), title = $("title"), which = chat;
  field.value = which.title;
  field.maxLength = 200;
  field.setAttribute("aria-label", "Title of the chat");
  const close = () => { field.replaceWith(title); };
  const keep = async () => {
    close();
    const wanted = field.value.trim();
    if (wanted === which.title) return;
    try {
      which.title = which.id ? (await chats.change(which.id, {title: wanted})).title : wanted;
    } catch (error) {
      showTrouble(error.message);
    }
    showTitle();
    refreshList();
  };
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") { event.preventDefault(); keep(); }
    if (event.key === "Escape") { event.stopPropagation(); close(); }
  });
  title.replaceWith(field);
  field.focus();
  field.select();
}

async function remove() {
  $("menu").open = false;
  const which = chat;
  if (answering?.chat === which) answering.controller.abort();
  which.isPrivate = true;  // what is still under way is not saved
  unsaved.delete(which);
  try {
    await which.saving;
    if (which.id) await chats.remove(which.id);
  } catch (error) {
    which.isPrivate = false;
    showTrouble(error.message);
    return;
  }
  begin();
  refreshList();
}

$("menu-items").append(
  button("Rename", rename),
  button("Export as Markdown", () => { $("menu").open = false; download(fileName(chat, "md"), "text/markdown", asMarkdown(chat)); }),
  button("Export as JSON", () => { $("menu").open = false; download(fileName(chat, "json"), "application/json", asJson(chat)); }),
  asksTwice("Delete", "Really delete?", remove));

// -- the box

function sendBox() {
  const question = $("question").value.trim();
  if (!question || answering || $("send").disabled) return;
  $("question").value = "";
  grow();
  generate({from: fromOf(chat), question, refused: () => giveBack(question)});
}

// A question without an answer is replaced by the next one, as in the terminal: templates want turns to alternate.
function fromOf({messages}) {
  const n = messages.length, [question, answer] = messages.slice(-2);
  if (messages.at(-1)?.role === "user") return n - 1;
  return n > 1 && question.role === "user" && !answer.content ? n - 2 : n;
}

function giveBack(question) {
  const typed = $("question").value;
  $("question").value = typed && typed !== question ? `${question}\n\n${typed}` : question;
  grow();
  $("question").focus();
}

function grow() {
  $("question").style.height = "auto";
  $("question").style.height = `${$("question").scrollHeight}px`;
}

function showBusy(is) {
  $("stop").hidden = !is;
  $("send").hidden = is;
  document.body.classList.toggle("answering", is);
  if (is) { toBottom(); poll(); } else if (document.activeElement === document.body || document.activeElement === $("stop")) $("question").focus();
}

// What went wrong, and perhaps what helps.
function showTrouble(text, ...actions) {
  $("trouble").hidden = !text;
  $("trouble").replaceChildren(...(text ? [element("span", "", text), ...actions] : []));
}

function showUnsaved(text) {
  $("unsaved").hidden = !text;
  $("unsaved").textContent = text;
}

const stop = () => answering?.controller.abort();

$("ask").addEventListener("submit", (event) => { event.preventDefault(); sendBox(); });
$("question").addEventListener("input", grow);
$("question").addEventListener("keydown", (event) => {
  if (isEnter(event)) { event.preventDefault(); $("ask").requestSubmit(); }
});
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", begin);
$("latest").addEventListener("click", toBottom);
log.addEventListener("click", ({target}) => {
  if (target.matches(".copy-code")) copy(target.closest(".code").querySelector("code").textContent, target);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (isPassageOpen()) closePassage();
  else if (answering) stop();
  else { $("menu").open = false; for (const id of PANELS) show(id, false); }
});

// -- the panels

const PANELS = ["chats", "documents", "settings", "server"];

function show(id, is) {
  $(id).classList.toggle("shown", is);
  $(`show-${id}`).setAttribute("aria-expanded", String(is));
}

function openPanel(id, is) {
  for (const other of PANELS) if (other !== id && (other !== "chats" || narrow.matches)) show(other, false);
  if (id !== "chats" || narrow.matches) $("passage").classList.remove("shown");
  show(id, is);
  if (id === "documents" && is) refreshStores();
}

for (const id of PANELS) $(`show-${id}`).addEventListener("click", () => openPanel(id, !$(id).classList.contains("shown")));
const narrow = matchMedia("(max-width: 60rem)");
show("chats", !narrow.matches);
narrow.addEventListener("change", () => show("chats", !narrow.matches));

$("list").addEventListener("click", (event) => {
  if (event.target.closest("a") && narrow.matches) show("chats", false);
});
$("search").addEventListener("input", () => {
  clearTimeout(searching);
  searching = setTimeout(refreshList, SEARCH_DELAY);
});
$("model").addEventListener("change", () => { showOwnSettings(); keepSettings(); });
$("system").addEventListener("input", () => {
  chat.system = $("system").value.trim() || null;
  // What is said to an empty chat is also for the next ones.
  if (!chat.messages.length) $("system").dataset.default = chat.system ?? "";
});
$("save").addEventListener("change", () => { if (!chat.messages.length) chat.isPrivate = !$("save").checked; });

// -- the beginning

// The server is there: for the first time, or again, perhaps with other options.
async function serverIsThere() {
  const before = chats.constructor;
  chats = facts.chats ? new ServerChats() : new BrowserChats();
  $("where").textContent = chats.where;
  showTools();
  showOwnSettings();
  if (isOpenYet && before !== chats.constructor && chat.id) detach(chat);
  if (!isOpenYet) {
    if (location.hash.length > 1) await openChat(location.hash.slice(1));
    isOpenYet = true;
  }
  refreshList();
  refreshStores();
}

window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (!id && chat.id) begin();
  else if (id !== chat.id) openChat(id);
});
window.addEventListener("focus", () => { if (isOpenYet) { refreshList(); refreshStores(); } });
// What there is of an answer is kept when the page is left.
window.addEventListener("pagehide", () => {
  if (!answering || answering.chat.isPrivate || !answering.message.content) return;
  Object.assign(answering.message, {busy: false, dirty: true, finish_reason: "interrupted"});
  saved(answering.chat, {keepalive: true}).catch(() => { /* nobody is there to be told */ });
});

$("openai").textContent = `${location.origin}/v1`;
$("origin").textContent = location.origin;
loadSettings();
$("system").value = $("system").dataset.default;
chat = newChat();
showChat();
poll();
