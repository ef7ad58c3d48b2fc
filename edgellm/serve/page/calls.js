// The tools that the server runs: which of them answers may use, and each call on a line with its result folded.

// Of one argument on a line, as in the terminal.
const MOST_ARGUMENT = 80;

// -- the choice

const toolNames = () => (facts?.tools ?? []).map(({name}) => name);
const toolsOff = () => new Set(storedSettings().tools_off ?? []);
// What the next answer may use; documents and tools are two ways to answer.
const toolsFor = ({kind}, collection) => kind === "chat" && !collection ? toolNames().filter((name) => !toolsOff().has(name)) : [];

function showTools() {
  const off = toolsOff(), tools = facts?.tools ?? [];
  $("tools").hidden = !tools.length;
  $("tools-list").replaceChildren(...tools.map(({name, risk, description}) => {
    const box = element("input"), line = element("label", "check", box, ` ${name} `, element("span", "hint", risk));
    box.type = "checkbox";
    box.value = name;
    box.checked = !off.has(name);
    line.title = description;
    return line;
  }));
}

const chosenOff = () => {
  const boxes = [...$("tools-list").querySelectorAll("input")];
  return boxes.length ? boxes.filter((box) => !box.checked).map((box) => box.value) : [...toolsOff()];
};

// -- the calls of an answer

// A call as the chats keep it, from the field `edgellm.tools` of an event.
function callOf({name, arguments: text, output, error, seconds: taken, sources, notes}) {
  let given;
  try { given = JSON.parse(text || "{}"); } catch { given = {"": text}; }
  const places = sources.filter(({url}) => url).map(({title, url}) => ({title, place: url}));
  return {name, arguments: given, text: output, error, sources: places, notes, seconds: taken};
}

function callLine({name, arguments: given}) {
  const short = (value) => {
    const text = (typeof value === "string" ? value : JSON.stringify(value)).split(/\s+/).filter(Boolean).join(" ");
    return text.length > MOST_ARGUMENT ? `${text.slice(0, MOST_ARGUMENT - 1)}…` : text;
  };
  return `${name}(${Object.entries(given).map(([key, value]) => key ? `${key}=${short(value)}` : short(value)).join(", ")})`;
}

function callView(call) {
  const line = element("summary", "", element("code", "", callLine(call)), ` ${seconds(call.seconds)}`);
  if (call.error) line.append(element("span", "failed", " failed"));
  const result = element("pre", "result", call.text);
  result.dir = "auto";
  const pages = call.sources.filter(({place}) => /^https?:\/\//i.test(place)).map(({title, place}) => {
    const link = element("a", "", title || place);
    link.href = place;
    link.rel = "noreferrer noopener";
    link.target = "_blank";
    return element("li", "", link);
  });
  const notes = call.notes.map((note) => element("p", "hint", note));
  return element("details", call.error ? "call error-call" : "call", line, result, ...notes, ...(pages.length ? [element("ul", "", ...pages)] : []));
}

function drawCalls(message, view) {
  const made = message.calls ?? [];
  if (view.n_calls === made.length) return;
  view.n_calls = made.length;
  view.calls.replaceChildren(...made.map(callView));
}

// In front of the answer that they led to, as `edgellm chats export` writes them.
const callsAsMarkdown = (made = []) =>
  made.map((call) => `> \`${callLine(call)}\`: ${call.text.split(/\s+/).filter(Boolean).join(" ")}\n\n`).join("");
