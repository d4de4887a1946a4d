// The preview page: shows what /events says, and sends what a person changes to /api/controls.
"use strict";

const $ = (id) => document.getElementById(id);
const picture = $("picture");
let state = null; // the last one that came
let heard = 0; // when, by this page's own clock
let chosen = Number(location.hash.slice(1)) || 1; // which source is shown large, from 1 on
let held = {}; // settings that a person is changing now: what the server says of them would jerk the slider

const seen = () => state.sources[chosen - 1] || state.sources[0];

function restartPicture() {
  picture.src = `/stream.mjpg?source=${chosen}&${Date.now()}`;
}

// A picture that breaks off (server gone, too many clients) is asked for again.
picture.addEventListener("error", () => setTimeout(restartPicture, 2000));
picture.addEventListener("load", () => {
  if (picture.naturalWidth) $("figure").style.aspectRatio = `${picture.naturalWidth} / ${picture.naturalHeight}`;
});

function listen() {
  const feed = new EventSource("/events");
  let wasLost = false;
  feed.addEventListener("open", () => {
    if (wasLost) restartPicture();
    wasLost = false;
  });
  feed.addEventListener("error", () => {
    wasLost = true;
    if (feed.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // refused: a browser does not try again
  });
  feed.addEventListener("state", (message) => {
    state = JSON.parse(message.data);
    heard = performance.now();
    const valid = Math.min(Math.max(1, Math.trunc(chosen)), state.sources.length);
    if (valid === chosen) show();
    else choose(valid);
  });
  feed.addEventListener("event", (message) => tell(JSON.parse(message.data)));
}

const clock = (wall) => new Date(wall * 1000).toLocaleTimeString();
const ms = (value) => (value == null ? "–" : value < 99.5 ? value.toFixed(1) : value.toFixed(0));
const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

function showStatus() {
  const gone = heard && performance.now() - heard > 5000;
  const source = state ? seen() : { kind: "connecting", reason: "", name: "" };
  let words = source.kind;
  let veil = "";
  if (gone) words = veil = "NO CONNECTION to the run";
  else if (source.kind === "NO SIGNAL") words = veil = `NO SIGNAL since ${clock(source.since_wall_s)}`;
  else if (state && state.settings.paused) words = "PAUSED";
  else if (source.kind !== "LIVE") veil = source.kind;
  const lost = gone || source.kind === "NO SIGNAL";
  document.body.className = lost ? "lost" : source.kind === "LIVE" ? "live" : "waiting";
  if ($("status").textContent !== words) $("status").textContent = words;
  $("source").textContent = source.name + (source.reconnects ? `, back ${source.reconnects} times` : "");
  $("veil").hidden = !veil;
  $("veil").replaceChildren(veil, element("small", gone ? "" : source.reason));
  document.title = `${words} · trt-blendmask`;
}

function show() {
  const source = seen();
  showStatus();
  showSources();
  $("fps").textContent = source.fps.toFixed(1);
  $("p50").textContent = ms(source.latency_ms.p50);
  $("p99").textContent = ms(source.latency_ms.p99);
  $("dropped").textContent = source.dropped;
  $("how").textContent = state.how;
  $("version").textContent = `trt-blendmask ${state.version}`;
  if (source.frame_wh) $("figure").style.aspectRatio = source.frame_wh.join(" / ");
  showSettings();
  showPlot();
  showStages();
  showClasses();
  showBoard();
}

// Several sources: each as a small picture that is looked at now and then; the chosen one is large, and live.
function showSources() {
  const tiles = $("sources");
  tiles.hidden = state.sources.length < 2;
  if (tiles.hidden) return;
  if (tiles.children.length !== state.sources.length) {
    tiles.replaceChildren(...state.sources.map((source, index) => tile(index + 1)));
    choose(chosen);
  }
  state.sources.forEach((source, index) => {
    const button = tiles.children[index];
    const kind = { LIVE: "on", "NO SIGNAL": "off" }[source.kind] || "";
    button.className = `source ${kind}`;
    button.setAttribute("aria-pressed", index + 1 === chosen);
    button.title = source.name;
    button.querySelector("span").textContent = source.name;
    const words = source.kind === "LIVE" ? `${source.fps.toFixed(1)} FPS` : source.kind;
    button.querySelector("b").textContent = words;
  });
}

function tile(number) {
  const button = element("button", "", "source");
  button.type = "button";
  const image = element("img");
  image.alt = "";
  const line = element("small");
  line.append(element("i"), element("b"));
  button.append(image, element("span"), line);
  button.addEventListener("click", () => choose(number));
  return button;
}

function choose(number) {
  const other = number !== chosen;
  chosen = number;
  history.replaceState(null, "", `#${chosen}`);
  $("snapshot").href = `/snapshot.jpg?source=${chosen}&download`;
  if (other) restartPicture();
  show();
}

function lookAround() {
  if (document.hidden || $("sources").hidden) return;
  state.sources.forEach((source, index) => {
    const image = $("sources").children[index].querySelector("img");
    if (source.frames && (image.complete || !image.src)) image.src = `/snapshot.jpg?source=${index + 1}&small&${Date.now()}`;
  });
}

function showSettings() {
  for (const name of ["score", "opacity"]) {
    if (!(name in held)) $(name).value = state.settings[name];
    $(`${name}_value`).textContent = Number($(name).value).toFixed(2);
  }
  $("pause").setAttribute("aria-pressed", state.settings.paused);
  $("pause").textContent = state.settings.paused ? "Go on" : "Pause";
  const recording = state.can_record && state.settings.recording;
  $("record").disabled = !state.can_record;
  $("record").title = state.can_record ? "" : "no recording is at work: start the run with --save F.mp4; where one has failed, the events say why";
  $("record").setAttribute("aria-pressed", recording);
  $("record").textContent = recording ? "Stop recording" : "Record";
}

function showPlot() {
  const canvas = $("plot");
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  const colours = getComputedStyle(document.documentElement);
  const colour = (name) => colours.getPropertyValue(name).trim();
  const points = seen().latency_ms.plot;
  const top = Math.max(10, ...points.map((point) => point[2])) * 1.1;
  const x = (age) => width - 2 - (age / 120) * (width - 36);
  const y = (value) => height - 3 - (value / top) * (height - 8);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colour("--quiet");
  pen.strokeStyle = colour("--line");
  for (const value of [0, top / 2.2, top / 1.1]) {
    pen.fillText(value.toFixed(0), 0, Math.min(height - 1, y(value) + 4));
    pen.beginPath();
    pen.moveTo(30, y(value));
    pen.lineTo(width, y(value));
    pen.stroke();
  }
  const lines = [[2, "--wait", 1], [1, "--accent", 2]];
  for (const [column, name, thickness] of lines) {
    pen.strokeStyle = colour(name);
    pen.lineWidth = thickness;
    pen.beginPath();
    let before = null;
    for (const point of points) {
      const joined = before !== null && before - point[0] <= 2; // a gap is a gap
      pen[joined ? "lineTo" : "moveTo"](x(point[0]), y(point[column]));
      before = point[0];
    }
    pen.stroke();
  }
  pen.lineWidth = 1;
}

function showStages() {
  const stages = Object.entries(seen().stage_ms);
  const total = Math.max(0.001, stages.reduce((sum, [, spent]) => sum + spent, 0));
  let begun = 0;
  $("stages").replaceChildren(
    ...stages.map(([name, spent]) => {
      const row = element("div", "", "row");
      const track = element("span", "", "track");
      const bar = element("i");
      bar.style.left = `${(100 * begun) / total}%`;
      bar.style.width = `${Math.max(1, (100 * spent) / total)}%`;
      begun += spent;
      track.append(bar);
      row.append(element("span", name), track, element("span", ms(spent), "value"));
      return row;
    }),
  );
}

function showClasses() {
  const names = state.class_names;
  const boxes = $("classes");
  if (boxes.dataset.names !== JSON.stringify(names)) {
    boxes.dataset.names = JSON.stringify(names);
    boxes.replaceChildren(
      ...names.map((name) => {
        const label = element("label", "", "class");
        const box = element("input");
        box.type = "checkbox";
        box.value = name;
        box.addEventListener("change", chooseClasses);
        label.append(box, element("span", name), element("b"));
        return label;
      }),
    );
  }
  const chosen = state.settings.classes;
  for (const box of boxes.querySelectorAll("input")) {
    if (!("classes" in held)) box.checked = chosen === null || chosen.includes(box.value);
    box.parentElement.querySelector("b").textContent = seen().classes[box.value] || 0;
  }
}

function showBoard() {
  const rows = [
    ...Object.entries(state.board.celsius).map(([name, value]) => [name, `${value.toFixed(1)} °C`]),
    ...Object.entries(state.board.watts).map(([name, value]) => [name, `${value.toFixed(2)} W`]),
  ];
  $("board_card").hidden = !rows.length;
  $("board").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

const told = new Set();
function tell(event) {
  const key = `${event.wall_s} ${event.kind}`;
  if (told.has(key)) return; // after a reconnection the past comes again
  told.add(key);
  if (told.size > 500) told.delete(told.values().next().value); // the oldest
  const item = element("li");
  item.append(element("time", clock(event.wall_s)), event.text);
  $("events").prepend(item);
  while ($("events").children.length > 100) $("events").lastChild.remove();
}

async function change(wishes) {
  Object.assign(held, wishes);
  try {
    const answer = await fetch("/api/controls", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wishes),
    });
    if (!answer.ok) throw new Error((await answer.json()).error);
    if (state) Object.assign(state.settings, await answer.json());
  } catch (error) {
    tell({ wall_s: Date.now() / 1000, kind: "refused", text: `not changed: ${error.message}` });
  }
  for (const name of Object.keys(wishes)) if (held[name] === wishes[name]) delete held[name];
  if (state) show();
}

function chooseClasses() {
  const boxes = [...$("classes").querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  change({ classes: chosen.length === boxes.length ? null : chosen });
}

for (const name of ["score", "opacity"]) {
  $(name).addEventListener("input", () => {
    $(`${name}_value`).textContent = Number($(name).value).toFixed(2);
    change({ [name]: Number($(name).value) });
  });
}
$("pause").addEventListener("click", () => state && change({ paused: !state.settings.paused }));
$("record").addEventListener("click", () => state && change({ recording: !state.settings.recording }));

restartPicture();
listen();
setInterval(showStatus, 1000);
setInterval(lookAround, 2000);
