// Markdown as models write it, made into elements. HTML in it stays text, and links lead to http, https and mailto only.
//
//   const view = new MarkdownView(container);
//   view.show("some **bold** te", true);      // true: more is to come
//   view.show("some **bold** text", false);
//
// Every scan is linear in the text, whatever the text is, and nesting is bounded.

const DEEPEST_BLOCK = 12, DEEPEST_MARK = 40;
const FENCE = /^( *)(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^[ \t]*([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const TABLE_RULE = /^[ \t|:-]*-[ \t|:-]*$/;

class MarkdownView {
  constructor(container) {
    this.container = container;
    this.sources = [];
  }
  // Only blocks that changed are made anew; what stays the same inside of them keeps its element, its selection and
  // its scroll position.
  show(text, isOpen) {
    const blocks = blocksOf(text.replace(/\r\n?/g, "\n").split("\n"));
    blocks.forEach((block, index) => {
      const last = isOpen && index === blocks.length - 1;
      const source = `${last}${block.kind}${block.source}`;
      if (this.sources[index] === source) return;
      this.sources[index] = source;
      const made = built(block, 0, last), old = this.container.childNodes[index];
      if (!old) this.container.append(made);
      else if (isAlike(old, made)) morph(old, made);
      else old.replaceWith(made);
    });
    this.sources.length = blocks.length;
    while (this.container.childNodes.length > blocks.length) this.container.lastChild.remove();
  }
}

function isAlike(old, made) {
  return old.nodeType === Node.ELEMENT_NODE && old.cloneNode(false).isEqualNode(made.cloneNode(false));
}

function morph(old, made) {
  const before = [...old.childNodes], after = [...made.childNodes];
  after.forEach((node, index) => {
    const was = before[index];
    if (!was) old.append(node);
    else if (was.nodeType === Node.TEXT_NODE && node.nodeType === Node.TEXT_NODE) {
      if (node.data.startsWith(was.data)) was.appendData(node.data.slice(was.data.length));
      else was.data = node.data;
    } else if (isAlike(was, node)) morph(was, node);
    else was.replaceWith(node);
  });
  for (const was of before.slice(after.length)) was.remove();
}

// -- blocks

function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) { at += 1; continue; }
    const begin = at, block = blockAt(lines, at);
    at = block.end;
    blocks.push({...block, source: lines.slice(begin, at).join("\n")});
  }
  return blocks;
}

function blockAt(lines, at) {
  const line = lines[at];
  let found;
  if ((found = FENCE.exec(line))) return fenceAt(lines, at, found);
  if ((found = HEADING.exec(line))) {
    const text = line.slice(found[0].length).trim().replace(/(^|\s)#+$/, "");
    return {kind: "heading", level: found[1].length, text, end: at + 1};
  }
  if (RULE.test(line)) return {kind: "rule", end: at + 1};
  if (QUOTE.test(line)) return quoteAt(lines, at);
  if ((found = ITEM.exec(line))) return listAt(lines, at, found);
  if (isTableAt(lines, at)) return tableAt(lines, at);
  return paragraphAt(lines, at);
}

function fenceAt(lines, at, [, indent, fence, info]) {
  const code = [], strip = new RegExp(`^ {0,${indent.length}}`), closing = new RegExp(`^ *\\${fence[0]}{${fence.length},}[ \\t]*$`);
  let end = at + 1;
  for (; end < lines.length && !closing.test(lines[end]); end += 1) code.push(lines[end].replace(strip, ""));
  return {kind: "code", language: info.trim().split(/\s/)[0], text: code.join("\n"), end: Math.min(end + 1, lines.length)};
}

function quoteAt(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return {kind: "quote", lines: lines.slice(at, end).map((line) => line.replace(QUOTE, "")), end};
}

const isOrdered = (marker) => marker.length > 1;

// Columns of white space before a text; a tab counts as four.
function indentOf(line) {
  let columns = 0;
  for (const char of line) {
    if (char !== " " && char !== "\t") break;
    columns += char === "\t" ? 4 : 1;
  }
  return columns;
}

function outdented(line, columns) {
  let at = 0;
  for (; columns > 0 && (line[at] === " " || line[at] === "\t"); at += 1) columns -= line[at] === "\t" ? 4 : 1;
  return line.slice(at);
}

function listAt(lines, at, [, marker]) {
  const indent = indentOf(lines[at]), items = [];
  let end = at, isLoose = false, wasBlank = false;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]), itsIndent = indentOf(lines[end]);
    if (!found || RULE.test(lines[end]) || itsIndent >= indent + 2 || isOrdered(found[1]) !== isOrdered(marker)) break;
    if (wasBlank) isLoose = true;
    const width = itsIndent + found[1].length + 1, item = [lines[end].slice(found[0].length)];
    let inFence = FENCE.test(item[0]), gap = false;
    wasBlank = false;
    for (end += 1; end < lines.length; end += 1) {
      const line = lines[end], isBlank = !line.trim();
      // A text goes on without an indent; what begins a block does not.
      if (!isBlank && indentOf(line) < indent + 2 && (wasBlank || ITEM.test(line) || startsBlock(lines, end))) break;
      if (FENCE.test(line)) inFence = !inFence;
      if (!isBlank && gap) isLoose = true;
      gap = isBlank && !inFence;
      item.push(outdented(line, width));
      wasBlank = isBlank;
    }
    while (item.length > 1 && !item.at(-1).trim()) item.pop();
    items.push(item);
  }
  return {kind: "list", ordered: isOrdered(marker), start: parseInt(marker, 10), items, isLoose, end};
}

function cellsOf(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/([^\\]|^)\|$/, "$1");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isTableAt(lines, at) {
  const rule = lines[at + 1];
  return lines[at].includes("|") && rule !== undefined && rule.includes("|") && TABLE_RULE.test(rule)
    && cellsOf(rule).length === cellsOf(lines[at]).length;
}

function tableAt(lines, at) {
  const sides = cellsOf(lines[at + 1]).map((cell) => cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "");
  const rows = [cellsOf(lines[at])];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) rows.push(cellsOf(lines[end]));
  return {kind: "table", sides, rows, end};
}

function startsBlock(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || isTableAt(lines, at)
    || (item !== null && (!isOrdered(item[1]) || parseInt(item[1], 10) === 1));
}

function paragraphAt(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end)) end += 1;
  return {kind: "paragraph", text: lines.slice(at, end).map((line) => line.trim()).join("\n"), end};
}

function built(block, depth, isOpen) {
  switch (block.kind) {
    case "heading": return withText(`h${Math.min(6, block.level + 2)}`, block.text, isOpen);
    case "rule": return element("hr");
    case "code": return codeBlock(block.language, block.text);
    case "quote": return around("blockquote", nested(block.lines, depth, isOpen));
    case "list": return list(block, depth, isOpen);
    case "table": return table(block);
    default: return withText("p", block.text, isOpen);
  }
}

function withText(tag, text, isOpen = false) {
  const made = element(tag, "", inline(text, isOpen));
  made.dir = "auto";
  return made;
}

function nested(lines, depth, isOpen) {
  if (depth >= DEEPEST_BLOCK) return [withText("p", lines.join("\n"))];
  const blocks = blocksOf(lines);
  return blocks.map((block, index) => built(block, depth + 1, isOpen && index === blocks.length - 1));
}

function codeBlock(language, text) {
  const copies = element("button", "copy-code", "Copy");
  copies.type = "button";
  const code = element("pre", "", element("code", "", text));
  code.dir = "ltr";
  code.tabIndex = 0;
  return element("div", "code", element("div", "head", element("span", "", language || "text"), copies), code);
}

function list(block, depth, isOpen) {
  const last = block.items.length - 1;
  const items = block.items.map((lines, index) => listItem(block, lines, depth, isOpen && index === last));
  const made = around(block.ordered ? "ol" : "ul", items);
  if (block.ordered && block.start !== 1) made.start = block.start;
  return made;
}

function listItem(block, lines, depth, isOpen) {
  const task = /^\[([ xX])\] /.exec(lines[0]);
  if (task) lines = [lines[0].slice(4), ...lines.slice(1)];
  const inside = nested(lines, depth, isOpen);
  const parts = block.isLoose ? inside : inside.flatMap((each) => each.nodeName === "P" ? [...each.childNodes] : [each]);
  const made = around(element("li", task ? "task" : ""), parts);
  made.dir = "auto";
  if (task) {
    const box = element("input");
    Object.assign(box, {type: "checkbox", checked: task[1] !== " ", disabled: true});
    made.prepend(box, " ");
  }
  return made;
}

function table({sides, rows}) {
  const row = (tag, cells) => element("tr", "", ...sides.map((side, index) => {
    const cell = withText(tag, cells[index] ?? "");
    if (side) cell.className = side;
    return cell;
  }));
  const [head, ...body] = rows;
  const rest = around("tbody", body.map((cells) => row("td", cells)));
  const frame = element("div", "table", element("table", "", element("thead", "", row("th", head)), rest));
  frame.tabIndex = 0;
  return frame;
}

// -- what stands in a line

const ESCAPED = /[!-/:-@[-`{-~]/;
const ADDRESS = /https?:\/\/[^\s<>"'`|\\^{}[\]]+/y;
const ANGLED = /<((?:https?:\/\/|mailto:)[^\s<>]*)>/y;
const BREAK = /<br ?\/?>/iy;
const TARGET = /\([ \n]{0,4}(?:<([^<>\n]*)>|([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*))(?:[ \n]{1,4}(?:"[^"\n]*"|'[^'\n]*'))?[ \n]{0,4}\)/y;
const PLAIN = /[^\\`*_~[\]!<h\n]+/y;

// Texts that follow each other become one. (`push(...nodes)` would put all of them on the stack.)
function extend(nodes, more) {
  for (const node of more) {
    if (typeof node === "string" && typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += node;
    else nodes.push(node);
  }
}

function around(tag, nodes) {
  const made = typeof tag === "string" ? element(tag) : tag;
  for (const node of nodes) made.append(node);
  return made;
}

// A stack of marks that may still be closed: each has the nodes that came since. `open` counts them by their mark.
class Marks {
  constructor() {
    this.frames = [{mark: "", count: 0, nodes: []}];
    this.open = {"*": 0, "_": 0, "~": 0, "[": 0};
  }
  get nodes() { return this.frames.at(-1).nodes; }
  add(...nodes) { extend(this.nodes, nodes); }
  begin(mark, count) {
    if (this.frames.length > DEEPEST_MARK) { this.add(mark.repeat(count)); return; }
    this.frames.push({mark, count, nodes: []});
    this.open[mark] += 1;
  }
  // The innermost frame of a mark; the ones inside of it were no marks, but text.
  upTo(mark) {
    const at = this.frames.findLastIndex((frame) => frame.mark === mark);
    const frame = this.frames[at];
    for (const inner of this.frames.splice(at + 1)) {
      if (inner.mark) this.open[inner.mark] -= 1;
      extend(frame.nodes, [inner.literal ?? inner.mark.repeat(inner.count)]);
      extend(frame.nodes, inner.nodes);
    }
    return frame;
  }
  take(mark) {
    const frame = this.upTo(mark);
    this.frames.pop();
    this.open[mark] -= 1;
    return frame;
  }
  // Close as much as fits of a run of `count` marks; returns how many are left.
  close(mark, count) {
    while (count > 0 && this.open[mark] > 0) {
      const frame = this.upTo(mark), used = Math.min(2, frame.count, count);
      if (mark === "~" && used < 2) break;
      frame.nodes = [around(mark === "~" ? "del" : used === 2 ? "strong" : "em", frame.nodes)];
      frame.count -= used;
      count -= used;
      if (frame.count === 0) { this.take(mark); extend(this.nodes, frame.nodes); }
    }
    return count;
  }
  forget(mark) {
    const frame = this.frames.findLast((each) => each.mark === mark);
    Object.assign(frame, {mark: "", literal: mark});
    this.open[mark] -= 1;
  }
  end(isOpen) {
    while (this.frames.length > 1) {
      const {mark, count, nodes, literal} = this.frames.pop();
      if (isOpen && (mark === "*" || mark === "_") && nodes.length) this.add(around(count === 1 ? "em" : "strong", nodes));
      else {
        if (!isOpen || !mark || mark === "[") this.add(literal ?? mark.repeat(count));
        extend(this.nodes, nodes);
      }
    }
    return this.nodes;
  }
}

function inline(text, isOpen = false) {
  const marks = new Marks(), unclosed = new Set();
  const match = (pattern, at) => { pattern.lastIndex = at; return pattern.exec(text); };
  let found;
  for (let at = 0; at < text.length;) {
    const char = text[at];
    if ((found = match(PLAIN, at))) { marks.add(found[0]); at += found[0].length; continue; }
    if (char === "\\" && ESCAPED.test(text[at + 1] ?? "")) { marks.add(text[at + 1]); at += 2; continue; }
    if (char === "\n") { marks.add(element("br")); at += 1; continue; }
    if (char === "`") { at = codeAt(text, at, marks, unclosed, isOpen); continue; }
    if ("*_~".includes(char)) { at = markAt(text, at, marks); continue; }
    if (char === "[") { marks.begin("[", 1); at += 1; continue; }
    if (char === "]" && marks.open["["]) { at = linkAt(text, at, marks, match(TARGET, at + 1)); continue; }
    if (char === "!" && text[at + 1] === "[") { at += 1; continue; }
    if (char === "<" && (found = match(ANGLED, at))) { marks.add(link(found[1], found[1])); at += found[0].length; continue; }
    if (char === "<" && (found = match(BREAK, at))) { marks.add(element("br")); at += found[0].length; continue; }
    if (char === "h" && !/\w/.test(text[at - 1] ?? "") && (found = match(ADDRESS, at))) {
      const address = withoutEnd(found[0]);
      marks.add(link(address, address));
      at += address.length;
      continue;
    }
    marks.add(char);
    at += 1;
  }
  return around(document.createDocumentFragment(), marks.end(isOpen));
}

function runAt(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeAt(text, at, marks, unclosed, isOpen) {
  const length = runAt(text, at), begin = at + length;
  let end = unclosed.has(length) ? -1 : text.indexOf("`", begin);
  while (end >= 0 && runAt(text, end) !== length) end = text.indexOf("`", end + runAt(text, end));
  if (end < 0 && !(isOpen && begin < text.length)) {
    unclosed.add(length);
    marks.add(text.slice(at, begin));
    return begin;
  }
  const inside = text.slice(begin, end < 0 ? text.length : end).replaceAll("\n", " ");
  const isPadded = /^ .*[^ ].* $/.test(inside);
  marks.add(element("code", "", isPadded ? inside.slice(1, -1) : inside));
  return end < 0 ? text.length : end + length;
}

function markAt(text, at, marks) {
  const mark = text[at], length = runAt(text, at), before = text[at - 1] ?? " ", after = text[at + length] ?? " ";
  const left = !/\s/.test(after), right = !/\s/.test(before);
  // Models write **Note:**text, so a star needs no space or sign around it. An underscore does: snake_case_name.
  const opens = left && (mark !== "_" || !/[\p{L}\p{N}]/u.test(before)) && (mark !== "~" || length === 2);
  const closes = right && (mark !== "_" || !/[\p{L}\p{N}]/u.test(after));
  const rest = closes ? marks.close(mark, length) : length;
  if (rest && opens) marks.begin(mark, rest);
  else if (rest) marks.add(mark.repeat(rest));
  return at + length;
}

function linkAt(text, at, marks, target) {
  if (!target) {
    marks.forget("[");
    marks.add("]");
    return at + 1;
  }
  const {nodes} = marks.take("[");
  const inside = around(document.createDocumentFragment(), nodes);
  for (const inner of inside.querySelectorAll("a")) inner.replaceWith(...inner.childNodes);
  marks.add(link(target[1] ?? target[2], inside));
  return at + 1 + target[0].length;
}

// A link, or its text and its address as text if a browser should not follow it.
function link(address, inside) {
  let url = null;
  try { url = new URL(address); } catch { /* relative, or none */ }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return element("span", "", inside, ` (${address})`);
  const made = element("a", "", inside);
  Object.assign(made, {href: url.href, rel: "noopener noreferrer nofollow", target: "_blank", title: url.href});
  return made;
}

// Punctuation after an address belongs to the sentence, a closing bracket to the address only if it opens one.
function withoutEnd(address) {
  const count = (char) => address.split(char).length - 1;
  let odd = count(")") - count("("), end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ")" ? odd-- <= 0 : !".,;:!?*_~]".includes(last)) break;
  }
  return address.slice(0, end);
}
