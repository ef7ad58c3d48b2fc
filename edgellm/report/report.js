// Filters and sorts the items of an evaluation. The page can be read without it.
"use strict";

const list = document.getElementById("item-list");
const form = document.getElementById("filters");

if (list && form) {
  const items = Array.from(list.children);
  const places = new Map(items.map((item, place) => [item, place]));
  const selects = Array.from(form.querySelectorAll("select"));
  const text = document.getElementById("filter-text");
  const count = document.getElementById("filter-count");
  const contents = new Map();

  const content = (item) => {
    if (!contents.has(item)) contents.set(item, item.textContent.toLowerCase());
    return contents.get(item);
  };

  const fits = (item, chosen, words) =>
    chosen.every(([name, value]) => item.dataset[name] === value) && words.every((word) => content(item).includes(word));

  const filter = () => {
    const chosen = selects.map((select) => [select.id.slice("filter-".length), select.value])
      .filter(([name, value]) => name !== "sort" && value);
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      item.hidden = !fits(item, chosen, words);
      if (!item.hidden) shown += 1;
    }
    count.textContent = shown === items.length ? `${shown} items` : `${shown} of ${items.length} items`;
  };

  const sort = () => {
    const name = document.getElementById("filter-sort").value;
    const sign = name === "tokens" || name === "seconds" ? -1 : 1;
    const byName = (a, b) => sign * (Number(a.dataset[name] || 0) - Number(b.dataset[name] || 0)) || places.get(a) - places.get(b);
    list.append(...items.sort(byName));
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  document.getElementById("filter-sort").addEventListener("change", sort);
  form.hidden = false;
}
