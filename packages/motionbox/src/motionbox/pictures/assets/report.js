"use strict";
// The clip table comes as columns: typed arrays in base64, strings as lists. Text is only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 24;
const ORDERS = [
  ["confidence-up", "lowest confidence first"],
  ["confidence-down", "highest confidence first"],
  ["area-up", "smallest clip box first"],
  ["area-down", "largest clip box first"],
  ["frames-down", "most frames first"],
  ["given", "as in the data set"],
];
const $ = (id) => document.getElementById(id);
const NONE = 65535;  // stands for a value that is not there

function column(name, Type) {
  const text = atob(data.columns[name]);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

const confidence = column("confidence", Uint16Array);  // in ten thousandths
const area = column("area", Uint16Array);  // of the frame, in ten thousandths
const frames = column("frames", Int32Array);
const status = column("status", Uint8Array);
const boxes = column("boxes", Uint16Array);  // x1, y1, x2, y2 in thousandths of the frame
const ratio = column("ratio", Uint16Array);  // width / height, in thousandths
const labels = data.labels.map((label, k) => ({ name: label.name, values: label.values, codes: column("label" + k, Uint16Array) }));
const ids = data.ids;
let lower = null;  // ids and reasons, made for the first search
let chosen = [];
let page = 0;

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, attributes);
  node.append(...children);
  return node;
}

function option(select, value, text) { select.append(make("option", { value, textContent: text })); }

function setUp() {
  data.statuses.forEach((name, code) => option($("status"), String(code), name));
  ORDERS.forEach(([value, text]) => option($("order"), value, text));
  labels.forEach((label, k) => {
    const select = make("select", { id: "label" + k });
    option(select, "", "all");
    const known = label.values.map((value, code) => [value, code]).sort((a, b) => a[0] < b[0] ? -1 : 1);
    known.forEach(([value, code]) => option(select, String(code), value));
    $("label-filters").append(make("label", {}, label.name + " ", select), " ");
  });
  $("controls").addEventListener("input", choose);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("back").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => $("detail-body").replaceChildren());
  choose();
}

function choose() {
  const words = $("find").value.trim().toLowerCase();
  const wanted = $("status").value;
  const codes = labels.map((_, k) => $("label" + k).value);
  const previews = $("previews").checked;
  if (words && lower === null) lower = ids.map((id, i) => (id + " " + reason(i)).toLowerCase());
  chosen = [];
  for (let i = 0; i < ids.length; i++) {
    if (words && !lower[i].includes(words)) continue;
    if (wanted !== "" && status[i] !== Number(wanted)) continue;
    if (previews && !(i in data.previews)) continue;
    if (codes.some((code, k) => code !== "" && labels[k].codes[i] !== Number(code))) continue;
    chosen.push(i);
  }
  order($("order").value);
  page = 0;
  show();
}

function order(by) {
  const [name, direction] = by.split("-");
  const values = { confidence, area, frames }[name];
  if (!values) return;
  const sign = direction === "up" ? 1 : -1;
  chosen.sort((a, b) => {
    const gone = (values[a] === NONE) - (values[b] === NONE);  // clips without a value come last
    return gone || sign * (values[a] - values[b]) || a - b;
  });
}

function turn(step) { page += step; show(); $("controls").scrollIntoView({ block: "start" }); }

function show() {
  const pages = Math.max(1, Math.ceil(chosen.length / PER_PAGE));
  $("count").textContent = chosen.length.toLocaleString("en") + " of " + ids.length.toLocaleString("en") + " clips.";
  $("page").textContent = (page + 1) + " / " + pages.toLocaleString("en");
  $("back").disabled = page === 0;
  $("next").disabled = page + 1 >= pages;
  $("gallery").replaceChildren(...chosen.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card));
}

// The code of the reason, without the sentence that explains it.
function reason(i) { return (data.reasons[i] ?? "").split(":")[0]; }

// What a card says: what is wrong with the clip, and its labels.
function about(i) {
  const state = data.statuses[status[i]];
  const wrong = state === "ok" ? [] : [reason(i) ? state + ": " + reason(i) : state];
  const words = labels.map((label) => label.codes[i] === NONE ? "" : label.values[label.codes[i]]).filter(Boolean);
  return [...wrong, ...words].join(" · ");
}

function picture(i) {
  const preview = data.previews[i];
  if (preview === undefined) return sketch(i);
  const video = make("video", { className: "picture", muted: true, loop: true, playsInline: true, preload: "none", poster: preview.poster, src: preview.video });
  return video;
}

// Without a preview: the clip box within the frame.
function sketch(i) {
  const canvas = make("canvas", { className: "picture", width: 390, height: 100 });
  const pen = canvas.getContext("2d");
  const [x1, y1, x2, y2] = Array.from(boxes.slice(4 * i, 4 * i + 4), (value) => value / 1000);
  const height = 88, width = height * (ratio[i] === NONE ? 16 / 9 : ratio[i] / 1000), left = (390 - width) / 2, top = 6;
  pen.strokeStyle = "#333845";
  pen.strokeRect(left, top, width, height);
  if (boxes[4 * i] !== NONE) {
    pen.setLineDash([6, 4]);
    pen.strokeStyle = "#ffbe3c";
    pen.strokeRect(left + x1 * width, top + y1 * height, (x2 - x1) * width, (y2 - y1) * height);
  }
  return canvas;
}

function card(i) {
  const level = confidence[i] === NONE ? 0 : confidence[i] / 10000;
  const bar = make("span", { className: "bar", title: "confidence " + level.toFixed(2) }, make("i", {}));
  bar.firstChild.style.width = 100 * level + "%";
  const state = make("span", { textContent: about(i) });
  if (data.statuses[status[i]] === "failed") state.className = "failed";
  const shown = picture(i);
  const node = make("button", { type: "button", className: "card", title: ids[i] }, shown,
    make("span", { className: "name", textContent: ids[i] }), make("span", { className: "about" }, state, bar));
  node.dataset.clip = ids[i];
  if (shown.tagName === "VIDEO") {
    node.addEventListener("mouseenter", () => shown.play().catch(() => {}));
    node.addEventListener("mouseleave", () => shown.pause());
  }
  node.addEventListener("click", () => open(i));
  return node;
}

function open(i) {
  const shown = picture(i);
  shown.className = "";
  if (shown.tagName === "VIDEO") { shown.controls = true; shown.autoplay = true; }
  const rows = [["status", data.statuses[status[i]] + (data.reasons[i] ? " (" + data.reasons[i] + ")" : "")]];
  labels.forEach((label) => { if (label.codes[i] !== NONE) rows.push([label.name, label.values[label.codes[i]]]); });
  rows.push(["frames", frames[i].toLocaleString("en")]);
  if (confidence[i] !== NONE) rows.push(["confidence", (confidence[i] / 10000).toFixed(3)]);
  if (area[i] !== NONE) rows.push(["clip box", (area[i] / 100).toFixed(1) + " % of the frame"]);
  const table = make("table", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", { textContent: name }), make("td", { textContent: value }))));
  const quoted = "'" + ids[i].replaceAll("'", "'\\''") + "'";
  $("detail-body").replaceChildren(make("h3", { textContent: ids[i] }), shown,
    make("p", { className: "muted", textContent: shown.tagName === "VIDEO" ? "boxes, optical flow, motion map; colours as above the gallery" : "no preview of this clip in the page; draw it with" }),
    make("code", { textContent: "motionbox show " + data.store + " -o clip.mp4 -- " + quoted }), table);
  $("detail").showModal();
}

setUp();
document.body.dataset.ready = "yes";
