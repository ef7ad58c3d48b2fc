// Answers from documents: numbered links to what was quoted, and the panel that shows it marked in its passage.

const CITED = "edgellm-cited", MOST_CITED = 40;
// They stand around a citation's number in a text that becomes Markdown; no font has them.
const OPEN = "\ue000", CLOSE = "\ue001";
// What the server adds to an answer for programs that know nothing of documents begins like this.
const SOURCES = "\n\nSources:\n", UNCONFIRMED = "\n\n[not confirmed: ", NEAREST = "\n\nNearest passages:\n";
const MODEL_MARK = /\s*\[\d{1,2}(?:\s*,\s*\d{1,2})*\]/g;
const PIECES = 200;
let passageTurn = 0, passageOpener = null;

// -- below the answer

// The answer without what the server has added, with the numbers of citations.
function shownText({content, documents, busy}) {
  if (!documents || busy) return content;
  const added = Math.max(...(documents.refused ? [UNCONFIRMED, NEAREST] : [SOURCES]).map((each) => content.lastIndexOf(each)));
  const text = Array.from((added < 0 ? content : content.slice(0, added)).replace(/[\ue000\ue001]/g, "\ufffd"));
  for (const {number, index} of documents.citations.toReversed()) text.splice(index, 0, `${OPEN}${number}${CLOSE}`);
  return text.join("").replace(MODEL_MARK, "");
}

function linkNumbers(container, {vector_store_id, citations}) {
  const walker = document.createTreeWalker(container, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) if (walker.currentNode.data.includes(OPEN)) found.push(walker.currentNode);
  for (const node of found) {
    const parts = node.data.split(/\ue000(\d+)\ue001/);
    node.replaceWith(...parts.map((part, index) => {
      const cited = index % 2 && citations.find(({number}) => number === Number(part));
      return cited ? citationLink(vector_store_id, cited, part, "cite") : part;
    }));
  }
}

function citationLink(store, cited, label, kind) {
  const link = button(label, (self) => openPassage(store, cited, self), kind);
  link.setAttribute("aria-label", `Source ${cited.number ?? ""}: ${placeOf(cited)}`);
  return link;
}

function placeOf({filename, page, lines, heading}) {
  const [first, last] = lines ?? [];
  const where = page ? `page ${page}` : !first ? "" : first === last ? `line ${first}` : `lines ${first}\u2013${last}`;
  return [filename, where, heading].filter(Boolean).join(", ");
}

function checkedView({content, documents}) {
  const {vector_store_id: store, citations, sentences, unknown_numbers, nearest, refused, reason} = documents;
  const nodes = [];
  if (refused && content.includes(UNCONFIRMED)) nodes.push(element("p", "notice", `Not confirmed: ${reason}.`));
  for (const {text} of sentences.filter(({citation}) => citation === null)) nodes.push(unsure("Not in the documents: ", text));
  if (unknown_numbers.length) nodes.push(unsure("Numbers that stand nowhere in the passages: ", unknown_numbers.join(", ")));
  if (citations.length) nodes.push(sourceList("Sources", citations.map((cited) => source(store, cited, cited.quote))));
  if (nearest.length) nodes.push(sourceList("Nearest passages", nearest.map((found) => source(store, asCited(found), found.text))));
  return nodes;
}

function unsure(label, text) {
  const said = element("span", "", text);
  said.dir = "auto";
  return element("p", "notice", label, said);
}

function sourceList(label, items) {
  const list = element("ol", "sources", ...items);
  list.setAttribute("aria-label", label);
  return element("div", "", element("p", "hint", label), list);
}

function source(store, cited, text) {
  const quote = element("span", "quote", text.replace(/\s+/g, " ").trim());
  quote.dir = "auto";
  return element("li", "", citationLink(store, cited, placeOf(cited), "source"), quote);
}

const asCited = ({file_id, filename, attributes: {page, first_line, last_line, heading}, text}) =>
  ({file_id, filename, page, lines: first_line ? [first_line, last_line] : null, heading, quote: text});

// This tab remembers what its answers cite, so that links work when a chat is opened again.

function citedBefore() {
  try { return new Map(JSON.parse(sessionStorage.getItem(CITED)) ?? []); } catch { return new Map(); }
}

function rememberCited({content, documents}) {
  const kept = [...citedBefore(), [content, documents]].slice(-MOST_CITED);
  try { sessionStorage.setItem(CITED, JSON.stringify(kept)); } catch { /* the list in the text stays */ }
}

// -- the panel

async function openPassage(store, cited, opener) {
  const turn = passageTurn += 1, text = $("passage-text");
  passageOpener = opener;
  for (const other of PANELS) if (other !== "chats" || narrow.matches) show(other, false);
  $("passage-file").textContent = cited.filename;
  $("passage-place").textContent = placeOf({...cited, filename: ""});
  text.replaceChildren(element("p", "hint", "Reading"));
  $("passage").classList.add("shown");
  $("close-passage").focus();
  try {
    const {whole, at} = await passage(store, cited);
    if (turn !== passageTurn) return;
    if (at < 0) {
      text.replaceChildren(whole || cited.quote);
      $("passage").scrollTop = 0;
      return;
    }
    const mark = element("mark", "", cited.quote);
    text.replaceChildren(whole.slice(0, at), mark, whole.slice(at + cited.quote.length));
    mark.scrollIntoView({block: "center"});
    announce(`${placeOf(cited)}: ${cited.quote}`);
  } catch (error) {
    if (turn === passageTurn) text.replaceChildren(element("p", "error", error.message));
  }
}

// The text of the page or of the lines, and where the quotation begins in it; -1: nowhere. A file without either is
// read until the quotation comes.
async function passage(store, {file_id, page, lines, quote}) {
  const path = `/v1/vector_stores/${encodeURIComponent(store)}/files/${encodeURIComponent(file_id)}/content?limit=${PIECES}`;
  const part = page ? `&page=${page}` : lines ? `&lines=${lines[0]}-${lines[1]}` : "";
  let whole = "", after = null;
  do {
    const found = await ask(path + part + (after ? `&after=${after}` : ""));
    whole = found.data.reduce(joined, part ? whole : "");
    after = found.next_page;
    const at = whole.indexOf(quote);
    if (at >= 0) return {whole, at};
  } while (after);
  return {whole: part ? whole : "", at: -1};
}

// A piece may begin with the end of the one before it.
function joined(whole, {text, n_repeated}) {
  if (!whole) return text;
  return n_repeated ? whole + Array.from(text).slice(n_repeated).join("") : `${whole}\n\n${text}`;
}

function closePassage() {
  passageTurn += 1;
  $("passage").classList.remove("shown");
  if (passageOpener?.isConnected) passageOpener.focus();
  else $("question").focus();
  passageOpener = null;
}

const isPassageOpen = () => $("passage").classList.contains("shown");

$("close-passage").addEventListener("click", closePassage);
