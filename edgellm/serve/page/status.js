// What the server does now: asked for every few seconds, shown beside the chat. A server that is gone is asked on.

const POLL = 2000, POLL_BUSY = 700, PATIENCE = 15000;
let latest = null, facts = null, timer = 0, started = null;

const modelStatus = (name) => latest?.models.find((model) => model.name === name);
const ownSettings = (name) => facts?.models[name] ?? {system: null, sampling: {}};
const writers = () => (latest?.models ?? []).filter((model) => model.kind === "chat" || model.kind === "completion");

async function poll() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const status = await ask("/status.json", {signal: AbortSignal.timeout(PATIENCE)});
      if (status.started !== started) {  // another server, perhaps with other models
        facts = await ask("/page.json");
        started = status.started;
        latest = status;
        showStatus(status);
        await serverIsThere();
      }
      latest = status;
      showStatus(status);
      haveKey();
      saveAll();
    } catch (error) {
      showState(error);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(poll, answering ? POLL_BUSY : POLL);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });

function showState(error) {
  $("state").className = "bad";
  if (error instanceof Unreachable) $("state").textContent = "not reachable; trying again";
  else $("state").textContent = error.status === 401 ? "a key is needed" : error.message;
}

function showStatus(status) {
  $("state").className = "";
  $("state").textContent = `running for ${span(status.uptime_seconds)}, version ${status.version}`;
  showModelChoice();
  const asked = status.models.filter((model) => model.decode_rate !== null);
  const chosen = asked.find((model) => model.name === $("model").value) ?? asked[0];
  if (!answering) {
    $("rate").textContent = rate(chosen?.decode_rate);
    $("ttft").textContent = seconds(chosen?.ttft_seconds);
  }
  const waiting = status.models.reduce((sum, model) => sum + model.waiting, 0);
  $("flight").textContent = number(status.in_flight);
  $("queue").textContent = waiting ? `under way, ${number(waiting)} of them waiting` : "requests under way";
  $("requests").textContent = number(status.models.reduce((sum, model) => sum + model.requests, 0));
  const used = status.models.reduce((sum, model) => sum + taken(model), status.resident_bytes);
  $("used").style.width = `${Math.min(100, 100 * used / status.total_bytes)}%`;
  $("memory").textContent = `${size(used)} of memory used here, ${size(status.available_bytes)} of ${size(status.total_bytes)} available` +
    (status.worker_restarts ? `; workers restarted ${number(status.worker_restarts)} times` : "");
  $("models").replaceChildren(...status.models.map(described));
  answering?.tell();
}

function showModelChoice() {
  const names = writers().map((model) => model.name), choice = $("model");
  if ([...choice.options].map((option) => option.value).join("\n") !== names.join("\n")) {
    const before = choice.value || storedSettings().model;
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) choice.value = before;
  }
  $("collection").disabled = modelStatus(choice.value)?.kind === "completion";
  $("send").disabled = names.length === 0;
  $("no-model").hidden = names.length > 0;
}

const taken = (model) => (model.resident_bytes ?? 0) + (model.scoring_resident_bytes ?? 0);

function described(model) {
  const idle = model.idle_seconds === null ? "" : `, idle ${span(model.idle_seconds)}`;
  const asked = model.in_flight + model.scoring_in_flight;
  const busy = asked ? `, ${number(asked)} under way` : "";
  const memory = taken(model) ? size(taken(model)) : `needs ${size(model.needed_bytes)}`;
  const state = element("span", model.state === "not loaded" ? "off" : "on", model.state + busy + idle);
  const about = `${model.kind}, ${model.quant}, ${number(model.n_ctx)} tokens \u00d7 ${number(model.n_slots)}`;
  return element("div", "model", element("div", "", element("b", "", model.name), state),
    element("div", "", element("span", "", about), element("span", "", memory)));
}
