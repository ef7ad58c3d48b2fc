"use strict";
// Small helpers for elements and numbers. Text becomes text nodes and never HTML.

const $ = (id) => document.getElementById(id);

function element(tag, kind, ...inside) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...inside);
  return made;
}

function button(label, action, kind = "") {
  const made = element("button", kind, label);
  made.type = "button";
  made.addEventListener("click", () => action(made));
  return made;
}

const number = (n) => n.toLocaleString("en");
const rate = (n) => n === null || n === undefined ? "\u2013" : n < 100 ? n.toFixed(1) : n.toFixed(0);
const seconds = (n) => n === null || n === undefined ? "\u2013" : n < 10 ? `${n.toFixed(2)} s` : `${n.toFixed(0)} s`;

function size(n) {
  if (n === null || n === undefined) return "\u2013";
  const [value, unit] = n >= 1e9 ? [n / 1e9, "GB"] : n >= 1e6 ? [n / 1e6, "MB"] : [n / 1e3, "kB"];
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
}

function span(n) {
  if (n < 90) return `${n.toFixed(0)} s`;
  if (n < 5400) return `${(n / 60).toFixed(0)} min`;
  return n < 172800 ? `${(n / 3600).toFixed(0)} h` : `${(n / 86400).toFixed(0)} days`;
}

// A screen reader hears whole sentences from here, not each token.
function announce(text) {
  $("announcer").textContent = text;
}

async function copy(text, source) {
  try {
    await copyText(text);
    source.textContent = "Copied";
  } catch {
    source.textContent = "Not copied";
  }
  setTimeout(() => { source.textContent = "Copy"; }, 1500);
}

async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Over plain HTTP from another machine, browsers have only the old way.
  const box = element("textarea", "unseen");
  box.value = text;
  const focused = document.activeElement;
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  focused?.focus();
  if (!done) throw new Error("the browser refused");
}

function download(name, type, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A button that removes something asks a second time, in its own place.
function asksTwice(label, question, action) {
  let timer = 0;
  return button(label, (self) => {
    clearTimeout(timer);
    if (self.dataset.asked) {
      delete self.dataset.asked;
      self.textContent = label;
      action();
      return;
    }
    self.dataset.asked = "yes";
    self.textContent = question;
    timer = setTimeout(() => { delete self.dataset.asked; self.textContent = label; }, 4000);
  });
}
