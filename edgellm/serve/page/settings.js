// The settings of answers: empty fields leave them to the model, whose own values they show.

const SETTINGS = "edgellm-settings";
// The fields of a request, by the ids of their inputs.
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];
const STOPS = "stop-texts";

function storedSettings() {
  try { return JSON.parse(localStorage.getItem(SETTINGS)) ?? {}; } catch { return {}; }
}

function keepSettings() {
  const kept = Object.fromEntries([...NUMBERS, STOPS].map((id) => [id, $(id).value]).filter(([, value]) => value));
  if ($("system").dataset.default) kept.system = $("system").dataset.default;
  if (!$("save").checked) kept.private = true;
  kept.model = $("model").value;
  kept.collection = $("collection").value;
  kept.tools_off = chosenOff();
  try { localStorage.setItem(SETTINGS, JSON.stringify(kept)); } catch { /* they last until the tab is closed */ }
}

function loadSettings() {
  const kept = storedSettings();
  for (const id of [...NUMBERS, STOPS]) $(id).value = kept[id] ?? "";
  $("system").dataset.default = kept.system ?? "";
  $("save").checked = !kept.private;
}

// What a request says beyond its messages. Raises an error that names the field that is wrong.
function askedSettings() {
  const asked = {};
  for (const id of NUMBERS) {
    const input = $(id);
    if (!input.checkValidity()) {
      show("settings", true);
      input.focus();
      throw new Error(`${input.labels[0].firstChild.data.trim()}: ${input.validationMessage}`);
    }
    if (input.value) asked[id] = Number(input.value);
  }
  const stops = $(STOPS).value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));
  if (stops.length) asked.stop = stops;
  return asked;
}

function showOwnSettings() {
  const {system, sampling} = ownSettings($("model").value);
  for (const id of ["temperature", "top_p", "top_k", "min_p"]) $(id).placeholder = sampling[id] ?? "";
  $("system").placeholder = system || "none, or what the model\u2019s template has";
}

function resetSettings() {
  for (const id of [...NUMBERS, STOPS]) $(id).value = "";
  $("system").value = $("system").dataset.default = "";
  $("system").dispatchEvent(new Event("input"));
  keepSettings();
}

$("settings").addEventListener("input", keepSettings);
$("reset").addEventListener("click", resetSettings);
