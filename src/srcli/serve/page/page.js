"use strict";
// The page of `srcli serve`: settings, a drop zone, the queue, and a brush for masks. It talks to /v1/jobs like any client.

const find = (id) => document.getElementById(id);
const rows = new Map();
let choices = { engines: {}, bases: [], formats: [], scratches: "" };

function say(text) {
  find("notice").textContent = text;
}

function addOption(select, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  select.append(option);
}

async function ask(address, init) {
  const answer = await fetch(address, init);
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error.message;
  } catch { /* not ours: the status has to do */ }
  throw new Error(message);
}

async function loadChoices() {
  choices = await (await ask("/v1/choices")).json();
  choices.formats.forEach((name) => addOption(find("format"), name, name.toUpperCase()));
  choices.bases.forEach((name) => addOption(find("base"), name, name));
  followTask();
}

// The command line's names of the tasks, by ours.
const COMMANDS = { upscale: "upscale", restore: "restore-old-photo", stylize: "stylize", colorize: "colorize" };

function followTask() {
  const task = find("task").value;
  const engine = find("engine");
  const before = engine.value;
  engine.replaceChildren();
  addOption(engine, "auto", "automatic");
  for (const [name, facts] of Object.entries(choices.engines)) {
    if (facts.tasks.includes(COMMANDS[task])) addOption(engine, name, facts.title);
  }
  engine.value = [...engine.options].some((option) => option.value === before) ? before : "auto";
  find("scale-row").hidden = task !== "upscale";
  find("fidelity-row").hidden = task === "stylize" || task === "colorize";
  find("map-row").hidden = task === "colorize";
  find("base-row").hidden = task !== "stylize";
  find("scratches-row").hidden = task !== "restore";
  find("scratches").disabled = choices.scratches !== "";
  find("scratches-need").textContent = choices.scratches && `(needs ${choices.scratches})`;
}

function options() {
  const task = find("task").value;
  const given = {};
  if (find("map").checked && !find("map-row").hidden) given.map = true;
  if (task === "restore" && find("scratches").checked) given.find_scratches = true;
  if (task === "upscale") given.scale = Number(find("scale").value);
  if (!find("fidelity-row").hidden && find("fidelity").value !== "") given.fidelity = Number(find("fidelity").value);
  return given;
}

async function send(file) {
  const form = new FormData();
  const mask = find("paint").checked ? await paintMask(file) : null;
  form.append("image", file, file.name);
  if (mask) form.append("mask", mask, "mask.png");
  form.append("task", find("task").value);
  form.append("engine", find("engine").value);
  if (find("task").value === "stylize" && find("base").value) form.append("base", find("base").value);
  if (find("format").value) form.append("format", find("format").value);
  form.append("options", JSON.stringify(options()));
  await ask("/v1/jobs", { method: "POST", body: form });
}

async function sendAll(files) {
  say("");
  for (const file of files) {
    try {
      await send(file);
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
  }
}

// Dropped folders come as entries that have to be walked.
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    if (!file.name.startsWith(".")) found.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const inner of some) await walk(inner, found);
  }
}

function makeRow(job) {
  const row = document.createElement("li");
  row.id = `job-${job.id}`;
  const name = document.createElement("div");
  const facts = document.createElement("div");
  const actions = document.createElement("div");
  name.className = "name";
  actions.className = "actions";
  name.textContent = job.name;
  const picture = document.createElement("div");
  picture.className = "picture";
  row.append(name, facts, actions, picture);
  find("queue").append(row);
  return { row, name, facts, actions, picture, shown: "", preview: "" };
}

function button(text, label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", () => action().catch((error) => say(error.message)));
  return made;
}

function link(text, label, address) {
  const made = document.createElement("a");
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.href = address;
  return made;
}

function sides(size) {
  return size ? `${size[0]} × ${size[1]}` : "";
}

function showFacts(parts, job) {
  if (job.status === "running" || job.status === "queued") {
    const bar = document.createElement("progress");
    bar.max = 1;
    if (job.status === "running") bar.value = job.progress;
    else bar.value = 0;
    bar.setAttribute("aria-label", `${job.name}: ${job.status}`);
    const text = document.createElement("div");
    text.className = "facts";
    showPreview(parts, job);
    text.textContent = job.status === "queued" ? "waits" : `${Math.floor(100 * job.progress)} % ${job.stage}`;
    parts.facts.replaceChildren(bar, text);
    return;
  }
  parts.picture.replaceChildren();
  const text = document.createElement("div");
  text.className = job.status === "failed" ? "failed" : "facts";
  text.textContent = job.status === "done" ? `${sides(job.sizes.source)} to ${sides(job.sizes.result)}` : job.message;
  parts.facts.replaceChildren(text);
}

// What is done so far; a new picture replaces the old one only when it has come, so nothing flickers.
function showPreview(parts, job) {
  if (!job.preview || parts.preview === job.preview) return;
  parts.preview = job.preview;
  const image = new Image();
  image.className = "preview";
  image.alt = `${job.name}, as far as it is done`;
  image.onload = () => {
    if (parts.row.dataset.status !== "running") return;
    parts.picture.replaceChildren(image);
  };
  image.src = job.preview;
}

function showActions(parts, job) {
  if (parts.shown === job.status) return;
  parts.shown = job.status;
  const remove = () => ask(`/v1/jobs/${job.id}`, { method: "DELETE" });
  const made = [];
  if (job.status === "done") {
    const compare = link("Compare", `Compare ${job.name} before and after`, `/v1/jobs/${job.id}/compare`);
    compare.target = "_blank";
    made.push(compare, link("Download", `Download ${job.name}`, job.download));
  }
  const ends = job.status === "queued" || job.status === "running";
  made.push(button(ends ? "Cancel" : "Remove", `${ends ? "Cancel" : "Remove"} ${job.name}`, remove));
  parts.actions.replaceChildren(...made);
}

function show(jobs) {
  const present = new Set(jobs.map((job) => job.id));
  for (const [id, parts] of rows) {
    if (!present.has(id)) {
      parts.row.remove();
      rows.delete(id);
    }
  }
  for (const job of jobs) {
    if (!rows.has(job.id)) rows.set(job.id, makeRow(job));
    const parts = rows.get(job.id);
    parts.row.dataset.status = job.status;
    showFacts(parts, job);
    showActions(parts, job);
  }
  find("empty").hidden = jobs.length > 0;
  find("download-all").hidden = jobs.filter((job) => job.status === "done").length < 2;
}

// Painting: strokes are kept as lists of points, so that one can be taken back; the mask is drawn from them at the end.
async function paintMask(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    say(`${file.name}: this browser cannot show it, so no mask can be painted`);
    return null;
  }
  const canvas = find("canvas");
  const pen = canvas.getContext("2d");
  const strokes = [];
  canvas.width = picture.width;
  canvas.height = picture.height;

  function drawStroke(target, stroke, color) {
    target.strokeStyle = target.fillStyle = color;
    target.lineWidth = stroke.width;
    target.lineCap = target.lineJoin = "round";
    target.beginPath();
    stroke.points.forEach(([x, y], index) => (index ? target.lineTo(x, y) : target.moveTo(x, y)));
    if (stroke.points.length === 1) target.lineTo(stroke.points[0][0] + 0.01, stroke.points[0][1]);
    target.stroke();
  }

  function redraw() {
    pen.drawImage(picture, 0, 0);
    strokes.forEach((stroke) => drawStroke(pen, stroke, "rgba(255, 0, 80, 0.6)"));
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const factor = canvas.width / box.width;
    return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
  }

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    const factor = canvas.width / canvas.getBoundingClientRect().width;
    strokes.push({ width: Number(find("brush").value) * factor, points: [place(event)] });
    redraw();
  };
  canvas.onpointermove = (event) => {
    if (!event.buttons || !strokes.length) return;
    strokes[strokes.length - 1].points.push(place(event));
    redraw();
  };
  find("undo").onclick = () => {
    strokes.pop();
    redraw();
  };
  find("clear").onclick = () => {
    strokes.length = 0;
    redraw();
  };
  redraw();
  const dialog = find("painter");
  dialog.showModal();
  const wanted = await new Promise((done) => {
    find("painted").onclick = () => done(true);
    find("unpainted").onclick = () => done(false);
    dialog.oncancel = () => done(null);
  });
  dialog.close();
  if (wanted === null) throw new Error("painting was given up, the picture was not sent");
  if (!wanted || !strokes.length) return null;
  const mask = document.createElement("canvas");
  mask.width = picture.width;
  mask.height = picture.height;
  const brush = mask.getContext("2d");
  brush.fillStyle = "black";
  brush.fillRect(0, 0, mask.width, mask.height);
  strokes.forEach((stroke) => drawStroke(brush, stroke, "white"));
  return new Promise((done) => mask.toBlob(done, "image/png"));
}

function listen() {
  const news = new EventSource("/v1/events");
  news.onmessage = (event) => show(JSON.parse(event.data).jobs);
  news.onerror = async () => {
    const answer = await fetch("/v1/choices").catch(() => null);
    if (!answer || answer.status !== 401) {
      say("The connection to srcli is lost; trying again.");
      return;
    }
    news.close();
    say("The server of this page has ended: open the address that srcli serve printed last.");
  };
  news.onopen = () => say("");
}

find("task").addEventListener("change", followTask);
find("files").addEventListener("change", (event) => {
  sendAll([...event.target.files]).then(() => (event.target.value = ""));
});
for (const name of ["dragenter", "dragover"]) {
  find("drop").addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
}
find("drop").addEventListener("dragleave", () => find("drop").classList.remove("over"));
find("drop").addEventListener("drop", async (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  await sendAll(await filesOf(event.dataTransfer));
});
find("settings").addEventListener("submit", (event) => event.preventDefault());
loadChoices().catch((error) => say(error.message));
listen();
