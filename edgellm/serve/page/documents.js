// The collections of documents: the one that answers come from, its files, and files that are dropped on the page.

const WATCH = 1000, N_FILES = 100;
let stores = [], files = [], hasMoreFiles = false, n_files = N_FILES, watching = 0;
// Files of this tab that the server does not have yet, or did not take.
let uploads = [], isSending = false;

const STORES = "/v1/vector_stores";
const NONE_OFFERED = "This server offers no documents. Start it again with: edgellm serve --docs all";
const storePath = (store) => `${STORES}/${encodeURIComponent(store.id)}`;
const hasDocuments = () => facts?.max_upload != null;
const chosenStore = () => stores.find((store) => store.edgellm.collection === $("collection").value) ?? null;
// What the next answer comes from, for a model of this kind: the name of a collection, or nothing.
const collectionFor = ({kind}) => kind === "chat" ? $("collection").value : "";

// -- what the server has

async function refreshStores() {
  if (!hasDocuments()) { stores = []; showDocuments(); return; }
  try {
    stores = (await allPages(STORES)).sort((a, b) => a.name.localeCompare(b.name));
    showDocumentsTrouble("");
  } catch (error) {
    showDocumentsTrouble(error.message);
  }
  showCollections();
  await refreshFiles();
}

async function allPages(path, most = Infinity) {
  const all = [];
  for (let after = "", more = true; more && all.length < most;) {
    const page = await ask(`${path}?limit=100${after}`);
    all.push(...page.data);
    after = `&after=${encodeURIComponent(page.last_id)}`;
    more = page.has_more;
  }
  return all;
}

// The chosen collection, asked for again and again while somebody looks at it or something is done in it.
async function refreshFiles() {
  clearTimeout(watching);
  const store = chosenStore();
  if (store && isDocumentsShown()) {
    try {
      const [now, found] = [await ask(storePath(store)), await allPages(`${storePath(store)}/files`, n_files)];
      if (store.id !== chosenStore()?.id) return;
      stores[stores.findIndex(({id}) => id === store.id)] = now;
      tellChanges(files, found);
      files = found;
      hasMoreFiles = files.length < now.file_counts.total;
    } catch (error) {
      showDocumentsTrouble(error.message);
      if (error.status === 404) { refreshStores(); return; }
    }
  }
  showDocuments();
  clearTimeout(watching);
  if (isDocumentsShown() && !document.hidden) watching = setTimeout(refreshFiles, WATCH);
}

// What a screen reader hears: each file once, when it is read or cannot be.
function tellChanges(before, after) {
  const busy = new Set(before.filter(({status}) => status === "in_progress").map(({id}) => id));
  const over = after.filter(({id, status}) => busy.has(id) && status !== "in_progress");
  if (over.length) announce(over.map((file) => `${file.edgellm.filename}: ${stateOf(file)}`).join("; "));
}

function showCollections() {
  const choice = $("collection"), before = choice.value || storedSettings().collection || "";
  const names = stores.map(({name, edgellm}) => [name === edgellm.collection ? name : `${name} (${edgellm.collection})`, edgellm.collection]);
  const source = JSON.stringify(names);
  if (choice.dataset.source !== source) {
    choice.dataset.source = source;
    choice.replaceChildren(new Option("No documents", ""), ...names.map(([label, name]) => new Option(label, name)));
    choice.value = names.some(([, name]) => name === before) ? before : "";
  }
  choice.hidden = !hasDocuments();
}

function choose(collection) {
  $("collection").value = collection;
  files = [];
  n_files = N_FILES;
  keepSettings();
  return refreshFiles();
}

// -- what the panel shows

const isDocumentsShown = () => $("documents").classList.contains("shown");

function showDocuments() {
  const store = chosenStore();
  $("no-documents").hidden = hasDocuments();
  $("has-documents").hidden = !hasDocuments();
  $("documents-title").textContent = store ? store.name : "Documents";
  $("documents-about").textContent = store ? aboutStore(store) : "Drop files anywhere on this page, or choose some. They become a collection that answers come from.";
  showProgress(store);
  const mine = uploads.filter((upload) => upload.collection === store?.edgellm.collection);
  showRows([...mine.map(uploadRow), ...(store ? files : []).toSorted(byUrgency).map(fileRow)]);
  $("more-files").hidden = !hasMoreFiles || !store;
  $("delete-collection").hidden = !store?.edgellm.can_delete;
  $("kept-collection").hidden = !store || store.edgellm.can_delete;
  $("kept-collection").textContent = store ? `Made in the terminal; this removes it: edgellm docs rm ${store.edgellm.collection}` : "";
}

function aboutStore({file_counts: {total, failed}, usage_bytes, edgellm: {embedder}}) {
  if (!total) return "It has no files yet. Drop some anywhere on this page.";
  const unread = failed ? `, ${number(failed)} of them not readable` : "";
  const how = embedder ? `found by words and by meaning (${embedder})` : "found by their words";
  return `${count(total, "file")}, ${size(usage_bytes)}${unread}; ${how}`;
}

const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

function showProgress(store) {
  const bar = $("documents-bar"), sending = uploads.find((upload) => upload.state === "sending"), made = store?.edgellm.progress;
  const isBusy = Boolean(sending || made || store?.file_counts.in_progress);
  $("documents-progress").hidden = !isBusy;
  $("show-documents").classList.toggle("working", isBusy);
  if (!isBusy) return;
  if (sending) { bar.max = 1; bar.value = sending.sent; } else if (made?.total) { bar.max = made.total; bar.value = made.done; } else bar.removeAttribute("value");
  const waiting = uploads.filter(({state}) => state === "waiting").length;
  $("documents-stage").textContent = sending
    ? `Sending ${sending.file.name}${waiting ? `; ${number(waiting)} more wait` : ""}`
    : made ? `${made.stage === "reading" ? `Reading ${made.detail}` : "You can ask now; preparing the search by meaning"}${made.total ? ` (${number(made.done)} of ${number(made.total)})` : ""}` : "Waiting";
}

const byUrgency = (a, b) => urgency(a) - urgency(b) || a.edgellm.filename.localeCompare(b.edgellm.filename);
const urgency = ({status}) => status === "in_progress" ? 0 : status === "failed" ? 1 : 2;

function stateOf({status, last_error, edgellm: {pages, chunks, chunks_without_vector}}) {
  if (status === "failed") return `could not be read: ${last_error?.message ?? "no reason is known"}`;
  const passages = count(chunks, "passage");
  if (status === "completed") return pages > 1 ? `${number(pages)} pages, ${passages}` : passages;
  if (chunks) return `ready for search by meaning: ${number(chunks - chunks_without_vector)} of ${passages}`;
  return "to be read";
}

// Rows by their keys; one that says the same as before stays, with its focus and its question whether to remove it.
const rows = new Map();

function showRows(wanted) {
  const list = $("files-list");
  const made = wanted.map(({key, source, build}) => {
    if (rows.get(key)?.source !== source) rows.set(key, {source, node: build()});
    return rows.get(key).node;
  });
  const keys = new Set(wanted.map(({key}) => key));
  for (const key of [...rows.keys()]) if (!keys.has(key)) rows.delete(key);
  if (made.length !== list.children.length || made.some((node, index) => node !== list.children[index])) placeRows(list, made);
}

// Only what is out of its place is moved: a moved element loses the focus.
function placeRows(list, made) {
  for (const old of [...list.children]) if (!made.includes(old)) old.remove();
  made.forEach((node, index) => { if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null); });
}

function row(key, name, state, kind, notes, ...tools) {
  const source = JSON.stringify([name, state, notes, tools.length]);
  const build = () => {
    const title = element("span", "name", name);
    title.dir = "auto";
    return element("li", kind, title, element("span", "state", state), ...notes.map((note) => element("span", "note", note)), ...tools.map((make) => make()));
  };
  return {key, source, build};
}

function fileRow(file) {
  const {filename, notes, can_delete} = file.edgellm;
  const remove = () => named(asksTwice("Remove", "Really remove?", () => removeFile(file)), filename);
  return row(file.id, filename, stateOf(file), file.status, notes, ...(can_delete ? [remove] : []));
}

function uploadRow(upload) {
  const {file, state, sent, error} = upload;
  const told = {waiting: "waits to be sent", sending: `sending, ${Math.floor(100 * sent)} %`, failed: `was not taken: ${error}`}[state];
  const forget = () => named(button("Forget", () => { uploads = uploads.filter((each) => each !== upload); showDocuments(); }), file.name);
  return row(upload.key, file.name, told, state, [], ...(state === "failed" ? [forget] : []));
}

function named(control, name) {
  control.setAttribute("aria-description", name);
  return control;
}

function showDocumentsTrouble(text) {
  $("documents-trouble").hidden = !text;
  $("documents-trouble").textContent = text;
}

// -- what people do

async function doing(work) {
  showDocumentsTrouble("");
  try {
    await work();
  } catch (error) {
    showDocumentsTrouble(error.message);
  }
}

async function makeCollection(name) {
  const store = await tell("POST", STORES, {name: name.slice(0, 200)});
  await refreshStores();
  await choose(store.edgellm.collection);
  return store;
}

const removeFile = (file) => doing(async () => {
  await tell("DELETE", `${storePath(chosenStore())}/files/${encodeURIComponent(file.id)}?files=delete`);
  announce(`${file.edgellm.filename} is removed.`);
  await refreshFiles();
  $("pick-files").focus();
});

const removeCollection = () => doing(async () => {
  const store = chosenStore();
  await choose("");
  try {
    await tell("DELETE", `${storePath(store)}?files=delete`);
    announce(`${store.name} is deleted.`);
  } finally {
    await refreshStores();
  }
  $("pick-files").focus();
});

const addFiles = (added) => doing(async () => {
  const [first] = added;
  if (!first) return;
  if (!hasDocuments()) { showTrouble(NONE_OFFERED); return; }
  openPanel("documents", true);
  const title = added.length > 1 ? "documents" : first.name.replace(/\.[^.]*$/, "") || "documents";
  const store = chosenStore() ?? await makeCollection(title);
  await refreshFiles();
  for (const file of added) {
    const error = whyNot(file);
    uploads.push({key: `upload-${n_uploads += 1}`, file, store, collection: store.edgellm.collection, sent: 0, state: error ? "failed" : "waiting", error});
  }
  announce(`${count(added.length, "file")} for ${store.name}.`);
  showDocuments();
  await sendAll();
});
let n_uploads = 0;

function whyNot({name, size: n_bytes}) {
  if (n_bytes > facts.max_upload) return `it is larger than ${size(facts.max_upload)}`;
  const isThere = files.some((file) => file.edgellm.filename === name && file.usage_bytes === n_bytes);
  return isThere ? "a file of this name and size is there already" : "";
}

async function sendAll() {
  if (isSending) return;
  isSending = true;
  for (let next; (next = uploads.find(({state}) => state === "waiting"));) await sendFile(next);
  isSending = false;
}

async function sendFile(upload) {
  upload.state = "sending";
  showDocuments();
  try {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", upload.file, upload.file.name);
    const {id} = await sendForm("/v1/files", form, (sent) => { upload.sent = sent; showDocuments(); });
    await tell("POST", `${storePath(upload.store)}/files`, {file_id: id});
    uploads = uploads.filter((each) => each !== upload);
  } catch (error) {
    Object.assign(upload, {state: "failed", error: error.message});
    announce(`${upload.file.name} was not taken: ${error.message}`);
  }
  await refreshFiles();
}

// The files of what was dropped, those in folders too; what begins with a dot is left out, as in the terminal.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await gather(entry, found);
  return found;
}

async function gather(entry, found) {
  if (entry.isFile) { found.push(await new Promise((take, fail) => entry.file(take, fail))); return; }
  const reader = entry.createReader();
  for (let some; (some = await new Promise((take, fail) => reader.readEntries(take, fail))).length;) {
    for (const each of some) if (!each.name.startsWith(".")) await gather(each, found);
  }
}

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") && !$("chat").hidden;

function showDrop(is) {
  const store = chosenStore();
  $("drop").hidden = !is;
  $("drop-text").textContent = !hasDocuments() ? NONE_OFFERED : store ? `Add to \u201c${store.name}\u201d` : "Ask about these files";
}

document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  if ($("drop").hidden) showDrop(true);
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) showDrop(false); });
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  showDrop(false);
  doing(async () => addFiles(await dropped(event.dataTransfer)));
});
window.addEventListener("beforeunload", (event) => { if (isSending) event.preventDefault(); });

$("pick-files").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { addFiles([...$("files").files]); $("files").value = ""; });
$("collection").addEventListener("change", () => choose($("collection").value));
$("more-files").addEventListener("click", () => { n_files *= 2; refreshFiles(); });
$("delete-collection").append(asksTwice("Delete this collection", "Really delete it and its files?", removeCollection));
$("new-collection").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("collection-name").value.trim();
  if (!name) return;
  doing(async () => {
    await makeCollection(name);
    $("collection-name").value = "";
    announce(`${name} is made.`);
  });
});
