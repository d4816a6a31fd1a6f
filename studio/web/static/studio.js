"use strict";
// What has to happen in the browser: pictures, sliders under the finger, the divider, the crop, dropped files, keys.
const studio = (() => {
  const base = location.pathname.replace(/\/[^/]*$/, "");
  const at = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const send = (what, facts = {}) => window.emitEvent("studio", { what, ...facts });
  const signed = (value) => (Math.abs(value) < 0.005 ? "0" : (value > 0 ? "+" : "−") + Math.abs(value).toFixed(2).replace(/\.?0+$/, ""));

  // -- Colours
  const themes = { auto: "light", light: "dark", dark: "auto" };
  let theme = localStorage.getItem("latentedit-theme") || "auto";
  function paint() {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    const names = { auto: "as the system", light: "light", dark: "dark" };
    const button = at(".theme");
    if (button) { button.title = `Colours: ${names[theme]}`; button.setAttribute("aria-label", button.title); }
  }
  function nextTheme() { theme = themes[theme] || "auto"; localStorage.setItem("latentedit-theme", theme); paint(); }
  paint();

  // -- Sliders
  const values = {};          // what the page shows
  const waiting = new Map();  // positions to be sent with the next frame
  let scheduled = false, dragged = null;
  const row = (name) => at(`.slider[data-name="${CSS.escape(name)}"]`);

  function show(name) {
    const element = row(name), facts = values[name];
    if (!element || !facts) return;
    const style = element.style;
    style.setProperty("--v", facts.v); style.setProperty("--reach", facts.reach);
    style.setProperty("--lo", facts.lo ?? 0); style.setProperty("--hi", facts.hi ?? 0);
    const far = facts.lo !== null && (facts.v < facts.lo - 1e-6 || facts.v > facts.hi + 1e-6);
    element.classList.toggle("on", Math.abs(facts.v) > 1e-6 || Boolean(facts.layers));
    element.classList.toggle("far", far);
    element.classList.toggle("locked", facts.locked);
    element.querySelector("output").textContent = signed(facts.v);
    const input = element.querySelector("input[type=range]");
    input.min = -facts.reach; input.max = facts.reach; input.disabled = facts.locked;
    if (dragged !== input) input.value = facts.v;
    mark(name, element, input);
    const lock = element.querySelector(".lock");
    lock.setAttribute("aria-pressed", facts.locked);
    const exact = element.querySelector(".exact"), layers = element.querySelector(".layers");
    if (exact && document.activeElement !== exact) exact.value = +facts.v.toFixed(3);
    if (exact) exact.disabled = facts.locked;
    if (layers && document.activeElement !== layers) layers.value = facts.layers || "";
  }
  // The mark moves by a transform, on which nothing has to be laid out again.
  function mark(name, element = row(name), input = element?.querySelector("input[type=range]")) {
    const facts = values[name];
    if (!element || !facts) return;
    const drifts = dragged !== input && Math.abs((facts.m || 0) - facts.v) > 0.08;
    const share = Math.min(Math.max((facts.m || 0) / facts.reach, -1), 1);
    element.querySelector(".mark").style.transform = `translateX(${(50 + 50 * share).toFixed(1)}%)`;
    element.classList.toggle("marked", drifts);
    const far = element.classList.contains("far") ? ", beyond what was seen to stay whole" : "";
    input.setAttribute("aria-valuetext", `${signed(facts.v)} sigma${far}${drifts ? `; measured ${signed(facts.m)}` : ""}`);
  }
  let sent = 0;
  const newestOf = {};        // number of the last position of each slider that was sent
  function apply(facts, seen) {
    for (const [name, found] of Object.entries(facts)) {
      const newer = waiting.has(name) || (newestOf[name] || 0) > seen;
      values[name] = { ...values[name], ...found, ...(newer ? { v: values[name].v } : {}) };
      show(name);
    }
  }
  function flush() {
    for (const [name, value] of waiting) { sent += 1; newestOf[name] = sent; send("slide", { name, value, number: sent }); }
    waiting.clear();
  }
  function slid(name, value) {
    values[name] = { ...values[name], v: value };
    waiting.set(name, value);
    if (!scheduled) {  // the first position goes at once, those after it once a frame
      scheduled = true;
      flush();
      requestAnimationFrame(() => { scheduled = false; flush(); });
    }
    show(name);
  }
  function settle() { flush(); send("settle"); }
  document.addEventListener("input", (event) => {
    const element = event.target.closest(".slider");
    if (element && event.target.type === "range") { dragged = event.target; slid(element.dataset.name, +event.target.value); }
    if (event.target.matches(".fine")) crop.fine(event.target);
  });
  document.addEventListener("change", (event) => {
    const element = event.target.closest(".slider");
    if (!element) return;
    if (event.target.type === "range") { dragged = null; settle(); mark(element.dataset.name); }
    if (event.target.matches(".exact") && event.target.value !== "") { slid(element.dataset.name, +event.target.value); settle(); }
    if (event.target.matches(".layers")) send("layers", { name: element.dataset.name, layers: event.target.value });
  });
  document.addEventListener("click", (event) => {
    const element = event.target.closest(".slider"), button = event.target.closest("button");
    if (!element || !button) return;
    const name = element.dataset.name;
    if (button.matches(".reset")) { send("reset", { name }); element.querySelector("input").focus(); }
    if (button.matches(".lock")) send("lock", { name, on: !values[name].locked });
    if (button.matches(".open")) {
      const more = element.querySelector(".more");
      more.hidden = !more.hidden;
      button.setAttribute("aria-expanded", !more.hidden);
    }
  });
  document.addEventListener("dblclick", (event) => {
    const element = event.target.closest(".slider");
    if (element && event.target.type === "range") send("reset", { name: element.dataset.name });
  });

  // -- The picture
  let newest = 0;
  const drawn = [];  // when pictures came and when they were on the screen, for measurements
  const painted = (then) => requestAnimationFrame(() => { const port = new MessageChannel(); port.port1.onmessage = then; port.port2.postMessage(0); });
  function picture(number, data) {
    if (number <= newest) return;
    newest = number;
    const image = at("#after");
    if (!image) return;
    const came = performance.now();
    image.src = data;
    image.dataset.number = number;
    image.decode().then(() => painted(() => drawn.push({ number, came, time: performance.now() }))).catch(() => {});
    if (drawn.length > 500) drawn.splice(0, 250);
  }
  let marking = 0;
  function marks(facts) {  // after the picture, which they belong to, is on the screen
    for (const [name, m] of Object.entries(facts)) if (values[name]) values[name].m = m;
    if (!marking) marking = setTimeout(() => { marking = 0; for (const name of Object.keys(values)) mark(name); }, dragged ? 120 : 40);
  }
  function before(data, alt, plate) {
    const image = at("#before");
    if (!image) return;
    image.src = data;
    image.alt = alt;
    at(".plate.was").textContent = plate;
  }
  function fresh() { newest = 0; for (const name of Object.keys(newestOf)) delete newestOf[name]; }

  // -- Before and after
  const frame = () => at("#frame");
  function hold(on) { frame()?.classList.toggle("held", on); at("#hold")?.setAttribute("aria-pressed", on); }
  function cut(share) {
    const kept = Math.min(Math.max(share, 0), 1);
    frame().style.setProperty("--cut", `${100 * kept}%`);
    const line = at("#divider");
    line.setAttribute("aria-valuenow", Math.round(100 * kept));
    line.setAttribute("aria-valuetext", `${Math.round(100 * kept)} percent before`);
  }
  function divide() {
    const on = frame()?.classList.toggle("divided");
    at("#divide")?.setAttribute("aria-pressed", Boolean(on));
    if (on) at("#divider").focus({ focusVisible: false });
  }
  document.addEventListener("pointerdown", (event) => {
    if (event.target.closest("#divider")) {
      const box = frame().getBoundingClientRect(), line = event.target.closest("#divider");
      line.setPointerCapture(event.pointerId);
      const move = (moved) => cut((moved.clientX - box.left) / box.width);
      line.addEventListener("pointermove", move);
      line.addEventListener("pointerup", () => line.removeEventListener("pointermove", move), { once: true });
      event.preventDefault();
    } else if (event.target.closest("#hold")) hold(true);
    else if (event.target.closest("#frame") && event.pointerType === "mouse" && event.button === 0 && !frame().classList.contains("divided")) hold(true);
    else if (event.target.closest("svg")) crop.grab(event);
  });
  addEventListener("pointerup", () => hold(false));
  addEventListener("pointercancel", () => hold(false));
  addEventListener("blur", () => hold(false));

  // -- The crop, in pixels of the photo
  const crop = (() => {
    let square = null, size = [1, 1], faces = [], eyes = null, timer = 0;
    const svg = () => at("#crop");
    const make = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const corners = (one) => {
      const t = one.angle * Math.PI / 180, h = one.side / 2;
      return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) =>
        [one.x + h * (x * Math.cos(t) - y * Math.sin(t)), one.y + h * (x * Math.sin(t) + y * Math.cos(t))]);
    };
    const inside = (one, u, v) => {  // a point of the square, from 0 to 1
      const [a, b, , d] = corners(one);
      return [a[0] + u * (b[0] - a[0]) + v * (d[0] - a[0]), a[1] + u * (b[1] - a[1]) + v * (d[1] - a[1])];
    };
    const text = (points) => points.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ");
    function draw() {
      const view = svg();
      if (!view || !square) return;
      const [w, h] = size, unit = w / Math.max(view.getBoundingClientRect().width, 1);
      view.setAttribute("viewBox", `0 0 ${w} ${h}`);
      const focused = view.contains(document.activeElement) && document.activeElement.classList.contains("crop");
      view.replaceChildren();
      const points = corners(square);
      view.append(make("path", { class: "shade", d: `M0 0H${w}V${h}H0Z M${points.map((p) => p.join(" ")).join(" L")}Z` }));
      faces.forEach((face, number) => {
        if (Math.hypot(face.x - square.x, face.y - square.y) < 0.02 * face.side) return;
        const other = make("polygon", { class: "other", points: text(corners(face)), tabindex: 0, role: "button", "aria-label": `Choose face ${number + 1}` });
        other.dataset.face = number;
        view.append(other);
      });
      const group = make("g", { class: "crop", tabindex: 0, role: "application",
        "aria-label": "The crop. Arrow keys move it, plus and minus scale it, [ and ] turn it." });
      group.append(make("polygon", { class: "chosen", points: text(points) }));
      if (eyes) group.append(make("polyline", { class: "eyes", points: text(eyes.map(([u, v]) => inside(square, u, v))) }));
      const [tx, ty] = inside(square, 0.5, 0), [kx, ky] = inside(square, 0.5, -26 * unit / square.side);
      group.append(make("line", { class: "stalk", x1: tx, y1: ty, x2: kx, y2: ky }));
      const turn = make("circle", { class: "handle turn", cx: kx, cy: ky, r: 9 * unit });
      group.append(turn);
      points.forEach(([x, y]) => group.append(make("circle", { class: "handle corner", cx: x, cy: y, r: 8 * unit })));
      view.append(group);
      if (focused) group.focus();
      all(".fine").forEach((input) => {
        if (input === document.activeElement) return;
        if (input.dataset.of === "side") { input.min = 5; input.max = 200; input.value = 100 * square.side / Math.min(...size); }
        else input.value = square.angle;
      });
    }
    function tell(now = false) {
      clearTimeout(timer);
      timer = setTimeout(() => send("crop", square), now ? 0 : 160);
    }
    function set(facts) { ({ square, size, faces, eyes } = facts); draw(); requestAnimationFrame(draw); }
    function change(changes) { square = { ...square, ...changes }; draw(); tell(); }
    function grab(event) {
      const view = svg();
      if (!view || !view.contains(event.target)) return;
      if (event.target.classList.contains("other")) { send("face", { number: +event.target.dataset.face }); return; }
      const role = ["chosen", "corner", "turn"].find((name) => event.target.classList.contains(name));
      if (!role) return;
      const where = (moved) => {
        const box = view.getBoundingClientRect();
        return [(moved.clientX - box.left) / box.width * size[0], (moved.clientY - box.top) / box.height * size[1]];
      };
      const start = { ...square }, from = where(event);
      view.setPointerCapture(event.pointerId);
      const move = (moved) => {
        const [x, y] = where(moved);
        if (role === "chosen") change({ x: start.x + x - from[0], y: start.y + y - from[1] });
        if (role === "corner") change({ side: Math.max(16, Math.hypot(x - start.x, y - start.y) * Math.SQRT2) });
        if (role === "turn") change({ angle: Math.round(Math.atan2(x - start.x, start.y - y) * 1800 / Math.PI) / 10 });
      };
      view.addEventListener("pointermove", move);
      view.addEventListener("pointerup", () => { view.removeEventListener("pointermove", move); view.querySelector(".crop")?.focus({ focusVisible: false }); }, { once: true });
      event.preventDefault();
    }
    function key(event) {
      const step = (event.shiftKey ? 0.05 : 0.01) * square.side;
      const moves = { ArrowLeft: { x: square.x - step }, ArrowRight: { x: square.x + step }, ArrowUp: { y: square.y - step }, ArrowDown: { y: square.y + step },
        "+": { side: square.side * 1.03 }, "=": { side: square.side * 1.03 }, "-": { side: square.side / 1.03 }, "[": { angle: square.angle - 1 }, "]": { angle: square.angle + 1 } };
      if (!moves[event.key]) return false;
      change(moves[event.key]);
      return true;
    }
    function fine(input) {
      if (!square) return;
      change(input.dataset.of === "side" ? { side: +input.value / 100 * Math.min(...size) } : { angle: +input.value });
    }
    addEventListener("resize", draw);
    return { set, grab, key, fine };
  })();

  // -- Files
  let allowed = 40;
  async function upload(file) {
    if (!file) return;
    if (file.size > allowed * 2 ** 20) { toast(`This file has ${Math.round(file.size / 2 ** 20)} MB; at most ${allowed} MB are taken.`, "bad"); return; }
    send("uploading", { name: file.name });
    try {
      const reply = await fetch(`${base}/upload?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      if (!reply.ok && !(reply.headers.get("content-type") || "").includes("json")) throw new Error(reply.status === 413 ? "This file is too large." : "The file could not be sent.");
      const found = await reply.json();
      if (found.error) throw new Error(found.error);
      if (found.opened) send("opened");
    } catch (problem) {
      send("uploaded", {});
      toast(problem instanceof TypeError ? "The file could not be sent. Is the studio still running in its terminal?" : problem.message, "bad");
    }
  }
  function choose() { at("#file").click(); }
  document.addEventListener("change", (event) => { if (event.target.id === "file") { upload(event.target.files[0]); event.target.value = ""; } });
  let depth = 0;
  const drags = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", (event) => { if (drags(event)) { depth += 1; dragging(true); event.preventDefault(); } });
  addEventListener("dragover", (event) => { if (drags(event)) event.preventDefault(); });
  addEventListener("dragleave", (event) => { if (drags(event) && (depth -= 1) <= 0) { depth = 0; dragging(false); } });
  addEventListener("drop", (event) => { if (!drags(event)) return; event.preventDefault(); depth = 0; dragging(false); upload(event.dataTransfer.files[0]); });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); upload(file); }
  });

  // -- Messages
  function toast(text, kind = "", link = null) {
    const box = at("#toasts");
    if (!box) return;
    const item = document.createElement("div");
    item.className = `toast ${kind}`;
    item.setAttribute("role", kind === "bad" ? "alert" : "status");
    const words = document.createElement("span");
    words.textContent = text;
    if (link) {
      const anchor = document.createElement("a");
      anchor.href = `${base}${link.href}`; anchor.textContent = link.text; anchor.download = link.name;
      words.append(" ", anchor);
    }
    const close = document.createElement("button");
    close.type = "button"; close.textContent = "✕"; close.setAttribute("aria-label", "Close this message");
    close.addEventListener("click", () => item.remove());
    if (kind === "bad") { const sign = document.createElement("span"); sign.className = "icon icon-warn"; sign.setAttribute("aria-hidden", "true"); item.append(sign); }
    item.append(words, close);
    box.append(item);
    while (box.children.length > 3) box.firstChild.remove();
    setTimeout(() => { if (!item.matches(":hover, :focus-within")) item.remove(); }, kind === "bad" ? 12000 : 8000);
  }
  async function copy(selector) {
    const field = at(selector);
    try { await navigator.clipboard.writeText(field.value); toast("Copied."); }
    catch { field.focus(); field.select(); toast("Press Ctrl+C to copy what is selected."); }
  }
  function dialog(selector) { const element = at(selector); if (element && !element.open) element.showModal(); }
  function close(selector) { at(selector)?.close(); }

  // -- Labels: an answer counts once the server has said that it is on the disk
  const label = (() => {
    const pictures = new Map();  // number of a sample: its <img>, fetched once
    let now = null, busy = false, over = false, alone = false;
    const part = (id) => document.getElementById(id);
    const here = () => Boolean(at("[data-label]")?.getClientRects().length);
    const say = (text, bad = false) => { const place = part("label-message"); if (place) { place.textContent = text; place.style.color = bad ? "var(--bad)" : ""; } };
    const address = (number) => `${base}/label/picture/${number}`;
    function ahead(number) {
      if (number === null || pictures.has(number)) return;
      const image = new Image();
      image.src = address(number);
      pictures.set(number, image);
      if (pictures.size > 12) pictures.delete(pictures.keys().next().value);
    }
    function buttons() {
      const idle = busy || over || !now;
      for (const id of ["yes", "no", "label-skip"]) if (part(id)) part(id).disabled = idle || now.number === null;
      if (part("label-undo")) part("label-undo").disabled = idle || !now.can_undo;
      if (part("label-done")) part("label-done").disabled = idle;
    }
    function show(state) {
      now = state;
      const whole = state.yes + state.no + state.left, image = part("sample");
      if (!image) return;
      if (alone) document.title = `${state.column}? ${state.left} left`;
      part("question").textContent = `${state.column}?`;
      for (const name of ["yes", "no", "left"]) part(`count-${name}`).textContent = state[name];
      at("#label-bar .part-yes").style.width = `${100 * state.yes / whole}%`;
      at("#label-bar .part-no").style.width = `${100 * state.no / whole}%`;
      part("label-bar").setAttribute("aria-valuemax", whole);
      part("label-bar").setAttribute("aria-valuenow", state.yes + state.no);
      part("label-auc").hidden = state.auc === null;
      part("label-auc").textContent = state.auc === null ? "" : `probe AUC ${state.auc.toFixed(2)} on these difficult samples`;
      part("label-file").textContent = state.file || "";
      part("label-over").hidden = state.number !== null && !over;
      image.hidden = state.number === null || over;
      if (state.number === null) part("label-over").textContent = "All samples have a label. Undo takes the last answer back.";
      else {
        image.alt = `Sample ${state.file}`;
        image.onerror = () => say("This image cannot be shown; skip it.", true);
        image.src = address(state.number);
        ahead(state.number);
        ahead(state.following);
      }
      send("labelled", { yes: state.yes, no: state.no, left: state.left });
    }
    async function ask(path, body) {
      const options = { cache: "no-store" };
      if (body) Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      let reply;
      try { reply = await fetch(`${base}/label/${path}`, options); }
      catch { throw new Error("The program behind this page has ended. Every answer until then is saved."); }
      if (!(reply.headers.get("content-type") || "").includes("json")) throw new Error("The program behind this page has ended or was started anew. Every answer until then is saved.");
      const found = await reply.json();
      if (!reply.ok) throw new Error(found.error);
      return found;
    }
    async function turn(path, body, text) {
      if (busy || over) return false;
      busy = true;
      buttons();
      let good = true;
      try { show(await ask(path, body)); say(text); } catch (problem) { say(problem.message, true); good = false; }
      busy = false;
      buttons();
      return good;
    }
    const words = { "1": "yes", "0": "no", "": "skipped" };
    const answer = (value) => { if (now && now.number !== null) turn("answer", { sample: now.number, value }, `${now.file}: ${words[value]}`); };
    const undo = () => { if (now && now.can_undo) turn("undo", {}, "Taken back"); };
    async function done() {
      if (!alone) { send("labelled", { yes: now.yes, no: now.no, left: now.left, done: true }); return; }
      if (!(await turn("done", {}, ""))) return;
      over = true;
      part("sample").hidden = true;
      part("label-over").hidden = false;
      part("label-over").textContent = `Finished: ${now.yes} yes, ${now.no} no, ${now.left} left. This page can be closed; the terminal says how to go on.`;
      part("label-file").textContent = "";
      buttons();
    }
    function open(single) {
      alone = single; over = false; now = null; pictures.clear();
      if (!part("sample")) { requestAnimationFrame(() => open(single)); return; }
      buttons();
      busy = true;
      ask("state").then((state) => { show(state); }).catch((problem) => say(problem.message, true)).finally(() => { busy = false; buttons(); });
    }
    document.addEventListener("click", (event) => {
      const pressed = event.target.closest("button");
      if (!pressed || !here()) return;
      if (pressed.id === "yes" || pressed.id === "no") answer(pressed.dataset.value);
      if (pressed.id === "label-skip") answer("");
      if (pressed.id === "label-undo") undo();
      if (pressed.id === "label-done") done();
    });
    return { open, answer, undo, here };
  })();

  // -- Keys
  const typing = (event) => event.target.matches("input[type=text], input[type=number], textarea, select");
  addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, command = event.ctrlKey || event.metaKey;
    if (at("dialog[open]")) return;
    if (command && key === "s") { event.preventDefault(); send("save"); return; }
    if (typing(event)) return;
    if (command && key === "z") { event.preventDefault(); send(event.shiftKey ? "redo" : "undo"); return; }
    if (command && key === "y") { event.preventDefault(); send("redo"); return; }
    if (command || event.altKey) return;
    if (event.target.classList?.contains("crop")) { if (crop.key(event)) event.preventDefault(); return; }
    if (event.target.classList?.contains("other") && (key === "Enter" || key === " ")) { event.preventDefault(); send("face", { number: +event.target.dataset.face }); return; }
    if (event.target.id === "divider" && (key === "ArrowLeft" || key === "ArrowRight")) {
      event.preventDefault();
      cut((+event.target.getAttribute("aria-valuenow") + (key === "ArrowLeft" ? -2 : 2)) / 100);
      return;
    }
    const element = event.target.closest?.(".slider");
    if (element && event.target.type === "range" && (key === "0" || key === "Delete" || key === "Backspace")) { event.preventDefault(); send("reset", { name: element.dataset.name }); return; }
    if (element && event.target.type === "range" && key === "l") { send("lock", { name: element.dataset.name, on: !values[element.dataset.name].locked }); return; }
    if (label.here() && event.target.type !== "range") {
      const answers = { j: "1", ArrowRight: "1", f: "0", ArrowLeft: "0", s: "" };
      if (key in answers) { event.preventDefault(); if (!event.repeat) label.answer(answers[key]); return; }
      if (key === "u" || key === "Backspace") { event.preventDefault(); if (!event.repeat) label.undo(); return; }
    }
    if (key === "b" && !event.repeat) hold(true);
    if (key === "d" && frame()) divide();
    if (event.key === "?") dialog("#keys");
  });
  addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "b") hold(false); });
  document.addEventListener("keydown", (event) => { if (event.target.id === "hold" && (event.key === " " || event.key === "Enter")) { event.preventDefault(); hold(true); } });
  document.addEventListener("keyup", (event) => { if (event.target.id === "hold") hold(false); });

  return { apply, picture, marks, before, fresh, drawn, divide, crop: crop.set, upload, choose, toast, copy, dialog, close, nextTheme, paint, cut, label,
    limit: (megabytes) => { allowed = megabytes; } };
})();
window.studio = studio;
