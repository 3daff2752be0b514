"use strict";
// Tiles lie in script elements as base64 and are decoded when they come into view. Lengths are device pixels.

const page = JSON.parse(document.getElementById("page-data").textContent);
const byId = (id) => document.getElementById(id);
const stage = byId("stage"), canvas = byId("canvas"), context = canvas.getContext("2d");
const spare = document.createElement("canvas").getContext("2d");
const boundary = byId("boundary"), gain = byId("gain");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const KEPT_TILES = 128;  // of 1 MB each once decoded
const BLINK_MS = 800;    // below three flashes a second
const MOST_ZOOM = 64;

const motif = page.pictures[0];  // its pixels are what the view counts in
const view = { x: motif.width / 2, y: motif.height / 2, zoom: 1 };
const shown = { first: 0, second: 1, mode: "slider", secondIsUp: false, running: false };

// --- tiles

const tiles = new Map();  // key -> ImageBitmap, or null while it is decoded; the oldest come first

function decode(key) {
  const text = byId(key).textContent;
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/webp" }));
}

function tileAt(key) {
  const found = tiles.get(key);
  if (found) {
    tiles.delete(key);
    tiles.set(key, found);
  } else if (found === undefined) {
    tiles.set(key, null);
    decode(key).then((bitmap) => {
      tiles.set(key, bitmap);
      drop();
      requestDraw();
    });
  }
  return found;
}

function drop() {
  for (const [key, bitmap] of tiles) {
    if (tiles.size <= KEPT_TILES) return;
    if (bitmap && !isCoarsest(key)) {
      bitmap.close();
      tiles.delete(key);
    }
  }
}

function isCoarsest(key) {
  const [, picture, level] = key.split("-").map(Number);
  return level === page.pictures[picture].levels.length - 1;
}

// --- drawing

function levelFor(picture, scale) {
  let level = 0;
  while (level + 1 < picture.levels.length && scale * 2 ** (level + 1) <= 1) level += 1;
  return level;
}

// Draw a picture into a pane of the canvas: the coarsest level first, then what there is of the one that is wanted.
function drawPicture(index, pane, clip, target = context) {
  const picture = page.pictures[index];
  const scale = view.zoom * (motif.width / picture.width);
  const left = pane.x + pane.width / 2 - view.x * view.zoom;
  const top = pane.y + pane.height / 2 - view.y * view.zoom;
  target.save();
  target.beginPath();
  target.rect(clip.x, clip.y, clip.width, clip.height);
  target.clip();
  const wanted = levelFor(picture, scale);
  let whole = true;
  for (const level of new Set([picture.levels.length - 1, wanted])) {
    whole = drawLevel(index, level, { left, top, scale, clip }, target);
  }
  target.restore();
  return whole;
}

function drawLevel(index, level, { left, top, scale, clip }, target) {
  const picture = page.pictures[index];
  const [width, height] = picture.levels[level];
  const across = (picture.width * scale) / width, down = (picture.height * scale) / height;
  target.imageSmoothingEnabled = scale < 1;
  let whole = true;
  const side = page.tile;
  const firstColumn = Math.max(0, Math.floor((clip.x - left) / across / side));
  const lastColumn = Math.min(Math.ceil(width / side) - 1, Math.floor((clip.x + clip.width - left) / across / side));
  const firstRow = Math.max(0, Math.floor((clip.y - top) / down / side));
  const lastRow = Math.min(Math.ceil(height / side) - 1, Math.floor((clip.y + clip.height - top) / down / side));
  for (let row = firstRow; row <= lastRow; row += 1) {
    for (let column = firstColumn; column <= lastColumn; column += 1) {
      const bitmap = tileAt(`tile-${index}-${level}-${row}-${column}`);
      if (!bitmap) { whole = false; continue; }
      // Edges are rounded alike on both sides of a seam, or it would show.
      const x = Math.round(left + column * side * across), y = Math.round(top + row * side * down);
      const right = Math.round(left + (column * side + bitmap.width) * across);
      const below = Math.round(top + (row * side + bitmap.height) * down);
      target.drawImage(bitmap, x, y, right - x, below - y);
    }
  }
  return whole;
}

function wholePane() {
  return { x: 0, y: 0, width: canvas.width, height: canvas.height };
}

function boundaryX() {
  return Math.round((canvas.width * boundary.value) / 100);
}

const modes = {
  slider() {
    const pane = wholePane(), x = boundaryX();
    const first = drawPicture(shown.first, pane, { ...pane, width: x });
    const second = drawPicture(shown.second, pane, { ...pane, x, width: pane.width - x });
    drawHandle(x);
    return first && second;
  },
  side() {
    const half = Math.floor(canvas.width / 2);
    const one = { ...wholePane(), width: half - 1 }, other = { ...wholePane(), x: half + 1, width: half - 1 };
    const first = drawPicture(shown.first, one, one), second = drawPicture(shown.second, other, other);
    return first && second;
  },
  blink() {
    return drawPicture(shown.secondIsUp ? shown.second : shown.first, wholePane(), wholePane());
  },
  difference() {
    const pane = wholePane();
    const first = drawPicture(shown.first, pane, pane);
    // Apart, since a picture may be drawn in two levels, of which each would be subtracted.
    spare.canvas.width = canvas.width;
    spare.canvas.height = canvas.height;
    const second = drawPicture(shown.second, pane, pane, spare);
    context.globalCompositeOperation = "difference";
    context.drawImage(spare.canvas, 0, 0);
    context.globalCompositeOperation = "lighter";
    for (let times = 1; times < gain.value; times *= 2) context.drawImage(canvas, 0, 0);
    context.globalCompositeOperation = "source-over";
    return first && second;
  },
};

function drawHandle(x) {
  const y = canvas.height / 2, size = 14 * devicePixelRatio;
  context.fillStyle = "#000";
  context.fillRect(x - 2, 0, 4, canvas.height);
  context.fillStyle = "#fff";
  context.fillRect(x - 1, 0, 2, canvas.height);
  context.beginPath();
  context.arc(x, y, size, 0, 2 * Math.PI);
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = "#000";
  context.stroke();
  context.fillStyle = "#000";
  context.font = `${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText("\u2194", x, y);
}

let asked = false;

function requestDraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

function draw() {
  context.fillStyle = shown.mode === "difference" ? "#000" : "#777";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const whole = modes[shown.mode]();
  stage.dataset.whole = whole;
  tell();
}

// --- words

function tell() {
  const first = page.pictures[shown.first].name, second = page.pictures[shown.second].name;
  const single = shown.mode === "blink";
  byId("tag-first").textContent = single && shown.secondIsUp ? second : first;
  byId("tag-second").textContent = second;
  byId("tag-second").hidden = single;
  byId("zoom").textContent = `${Math.round(view.zoom * 1000) / 10} %`;
  boundary.setAttribute("aria-valuetext", `${Math.round(boundary.value)} % ${first}, the rest ${second}`);
  const how = { slider: "divided by the boundary", side: "side by side", blink: "in turn", difference: "their difference" };
  stage.setAttribute("aria-label", `${first} and ${second}, ${how[shown.mode]}`);
}

// --- the view

function resized() {
  const box = stage.getBoundingClientRect();
  const width = Math.round(stage.clientWidth * devicePixelRatio), height = Math.round(stage.clientHeight * devicePixelRatio);
  if (box.width && (canvas.width !== width || canvas.height !== height)) {
    canvas.width = width;
    canvas.height = height;
  }
  requestDraw();
}

function fit() {
  const width = shown.mode === "side" ? canvas.width / 2 : canvas.width;
  view.zoom = Math.min(width / motif.width, canvas.height / motif.height);
  view.x = motif.width / 2;
  view.y = motif.height / 2;
  requestDraw();
}

function leastZoom() {
  return Math.min(1, canvas.width / motif.width / 2, canvas.height / motif.height / 2);
}

function pan(dx, dy) {
  view.x = Math.min(motif.width, Math.max(0, view.x - dx / view.zoom));
  view.y = Math.min(motif.height, Math.max(0, view.y - dy / view.zoom));
  requestDraw();
}

// Zoom by a factor; the point of the canvas that is given stays where it is.
function zoomBy(factor, at) {
  const pane = paneAt(at);
  const zoom = Math.min(MOST_ZOOM, Math.max(leastZoom(), view.zoom * factor));
  const dx = at.x - pane.x - pane.width / 2, dy = at.y - pane.y - pane.height / 2;
  view.x += dx / view.zoom - dx / zoom;
  view.y += dy / view.zoom - dy / zoom;
  view.zoom = zoom;
  pan(0, 0);
}

function paneAt(at) {
  const pane = wholePane();
  if (shown.mode !== "side") return pane;
  const half = pane.width / 2;
  return { ...pane, x: at.x < half ? 0 : half, width: half };
}

function middle() {
  return { x: canvas.width / (shown.mode === "side" ? 4 : 2), y: canvas.height / 2 };
}

function setMode(mode) {
  shown.mode = mode;
  byId(`mode-${mode}`).checked = true;
  byId("boundary-row").hidden = mode !== "slider";
  byId("gain-row").hidden = mode !== "difference";
  byId("blink-row").hidden = mode !== "blink";
  run(mode === "blink" && !calm.matches);
  requestDraw();
}

let timer = 0;

function run(running) {
  clearInterval(timer);
  shown.running = running;
  byId("pause").textContent = running ? "Pause" : "Run";
  if (running) timer = setInterval(swap, BLINK_MS);
}

function swap() {
  shown.secondIsUp = !shown.secondIsUp;
  requestDraw();
}

// --- pointers: one drags the boundary or the picture, two zoom

const pointers = new Map();
let drags = "";

function place(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) * devicePixelRatio, y: (event.clientY - box.top) * devicePixelRatio };
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  const at = place(event);
  pointers.set(event.pointerId, at);
  const reach = (event.pointerType === "mouse" ? 12 : 28) * devicePixelRatio;
  drags = shown.mode === "slider" && Math.abs(at.x - boundaryX()) < reach ? "boundary" : "picture";
});

stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const at = place(event);
  if (pointers.size > 1) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    zoomBy(apart(at) / Math.max(1, apart(before)), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
  } else if (drags === "boundary") {
    boundary.value = (at.x / canvas.width) * 100;
    requestDraw();
  } else {
    pan(at.x - before.x, at.y - before.y);
  }
  pointers.set(event.pointerId, at);
});

for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => pointers.delete(event.pointerId));
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomBy(2 ** (-event.deltaY / 300), place(event));
}, { passive: false });

// --- keys

const STEP = 60;
const keys = {
  ArrowLeft: () => pan(STEP, 0),
  ArrowRight: () => pan(-STEP, 0),
  ArrowUp: () => pan(0, STEP),
  ArrowDown: () => pan(0, -STEP),
  "+": () => zoomBy(2, middle()),
  "=": () => zoomBy(2, middle()),
  "-": () => zoomBy(0.5, middle()),
  0: fit,
  1: () => zoomBy(1 / view.zoom, middle()),
  "[": () => moveBoundary(-2),
  "]": () => moveBoundary(2),
  " ": () => (shown.mode === "blink" ? swap() : moveBoundary(0)),
  s: () => setMode("slider"),
  d: () => setMode("difference"),
  b: () => setMode("blink"),
  n: () => setMode("side"),
};

function moveBoundary(by) {
  boundary.value = Number(boundary.value) + by;
  requestDraw();
}

stage.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

// --- controls

for (const mode of Object.keys(modes)) byId(`mode-${mode}`).addEventListener("change", () => setMode(mode));
for (const which of ["first", "second"]) {
  byId(which).addEventListener("change", (event) => {
    shown[which] = Number(event.target.value);
    requestDraw();
  });
}
boundary.addEventListener("input", requestDraw);
gain.addEventListener("change", requestDraw);
byId("pause").addEventListener("click", () => run(!shown.running));
byId("swap").addEventListener("click", swap);
byId("zoom-in").addEventListener("click", () => zoomBy(2, middle()));
byId("zoom-out").addEventListener("click", () => zoomBy(0.5, middle()));
byId("zoom-fit").addEventListener("click", fit);
byId("zoom-full").addEventListener("click", () => zoomBy(1 / view.zoom, middle()));
calm.addEventListener("change", () => calm.matches && run(false));
new ResizeObserver(resized).observe(stage);

resized();
fit();
setMode("slider");
