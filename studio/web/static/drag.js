"use strict";
// Points and a mask on the face: what is dragged, where to, and what may change.
studio.drag = (() => {
  const at = (selector) => document.querySelector(selector);
  const pairs = [];           // { from: [x, y], to: [x, y] or null }, in pixels of the image
  let side = 128, tool = "points", cursor = null, face = "", running = null, painted = false, corner = null;
  const most = 20;
  const clamp = (value) => Math.min(Math.max(value, 0), side - 1);
  const round = (value) => Math.round(value * 10) / 10;
  const svg = () => at("#drag");
  const canvas = () => at("#drag-mask");
  const make = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  // -- What is drawn
  function draw() {
    const view = svg();
    if (!view) return;
    // A pixel's centre has whole numbers, so the image begins half a pixel before 0.
    view.setAttribute("viewBox", `-0.5 -0.5 ${side} ${side}`);
    const unit = side / Math.max(view.getBoundingClientRect().width, 1);
    view.replaceChildren();
    pairs.forEach((pair, number) => {
      const [x, y] = running?.[number] || pair.from;
      const group = make("g", { class: "pair" });
      if (pair.to) {
        group.append(make("line", { class: "way under", x1: x, y1: y, x2: pair.to[0], y2: pair.to[1] }));
        group.append(make("line", { class: "way", x1: x, y1: y, x2: pair.to[0], y2: pair.to[1] }));
        group.append(make("circle", { class: "target", cx: pair.to[0], cy: pair.to[1], r: 6 * unit }));
      }
      group.append(make("circle", { class: "from", cx: x, cy: y, r: 6 * unit }));
      const text = make("text", { x: x + 9 * unit, y: y - 7 * unit, "font-size": 13 * unit });
      text.textContent = number + 1;
      group.append(text);
      view.append(group);
    });
    if (cursor && view.matches(":focus-visible")) {
      const [x, y] = cursor, r = 12 * unit;
      for (const kind of ["under", "over"]) view.append(make("path", { class: `cursor ${kind}`, d: `M${x - r} ${y}H${x + r}M${x} ${y - r}V${y + r}` }));
    }
    if (corner) {
      const [[a, b], [c, d]] = corner;
      view.append(make("rect", { class: "pull", x: Math.min(a, c), y: Math.min(b, d), width: Math.abs(c - a), height: Math.abs(d - b) }));
    }
  }
  function list() {
    const box = at("#drag-pairs");
    if (!box) return;
    box.replaceChildren();
    pairs.forEach((pair, number) => {
      const row = document.createElement("div");
      row.className = "drag-pair";
      const name = document.createElement("b");
      name.textContent = number + 1;
      row.append(name);
      [["from", 0, "x"], ["from", 1, "y"], ["to", 0, "x"], ["to", 1, "y"]].forEach(([end, axis, letter]) => {
        if (end === "to" && axis === 0) row.append("→");
        const input = document.createElement("input");
        Object.assign(input, { type: "number", min: 0, max: side - 1, step: 1, value: pair[end] ? round(pair[end][axis]) : "" });
        input.setAttribute("aria-label", `${end === "from" ? "Point" : "Target of point"} ${number + 1}, ${letter}`);
        input.addEventListener("change", () => {
          if (input.value === "" || !Number.isFinite(+input.value)) return;
          pair[end] ||= [...pair.from];
          pair[end][axis] = clamp(+input.value);
          list(); draw();
        });
        row.append(input);
      });
      const remove = document.createElement("button");
      Object.assign(remove, { type: "button", className: "sign", textContent: "✕", title: `Remove point ${number + 1}` });
      remove.setAttribute("aria-label", remove.title);
      remove.addEventListener("click", () => { pairs.splice(number, 1); changed(); });
      row.append(remove);
      box.append(row);
    });
    const go = at("#drag-go");
    if (go) go.disabled = !pairs.length || pairs.some((pair) => !pair.to);
  }
  function changed() { list(); draw(); }

  // -- Points
  function set([x, y]) {
    const last = pairs.at(-1);
    if (last && !last.to) last.to = [x, y];
    else if (pairs.length < most) pairs.push({ from: [x, y], to: null });
    else studio.toast(`At most ${most} points.`, "bad");
    changed();
  }
  function near([x, y], reach) {
    for (const pair of [...pairs].reverse())
      for (const end of ["to", "from"])
        if (pair[end] && Math.hypot(pair[end][0] - x, pair[end][1] - y) < reach) return [pair, end];
    return null;
  }
  function where(event) {
    const box = svg().getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width * side - 0.5), clamp((event.clientY - box.top) / box.height * side - 0.5)].map(round);
  }

  // -- The mask: opaque where it holds
  function paint(work) {
    const field = canvas(), pen = field.getContext("2d");
    if (!painted && tool === "erase") return;
    if (!painted) { pen.fillStyle = "#000"; pen.fillRect(0, 0, side, side); painted = true; }
    pen.globalCompositeOperation = tool === "erase" ? "source-over" : "destination-out";
    work(pen);
    field.classList.add("on");
  }
  function stroke([a, b], [c, d]) {
    paint((pen) => {
      pen.lineWidth = 2 * +at("#drag-size").value; pen.lineCap = "round"; pen.strokeStyle = "#000";
      pen.beginPath(); pen.moveTo(a + 0.5, b + 0.5); pen.lineTo(c + 0.501, d + 0.5); pen.stroke();
    });
  }
  function rectangle([a, b], [c, d]) {
    paint((pen) => { pen.fillStyle = "#000"; pen.fillRect(Math.min(a, c), Math.min(b, d), Math.abs(c - a) + 1, Math.abs(d - b) + 1); });
  }
  function bits() {
    if (!painted) return "";
    const alpha = canvas().getContext("2d").getImageData(0, 0, side, side).data;
    const bytes = new Uint8Array(Math.ceil(side * side / 8));
    for (let i = 0; i < side * side; i += 1) if (alpha[4 * i + 3] < 128) bytes[i >> 3] |= 128 >> (i & 7);
    let text = "";
    for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
    return btoa(text);
  }
  function unpaint() {
    const field = canvas();
    field.getContext("2d").clearRect(0, 0, side, side);
    field.classList.remove("on");
    painted = false;
  }

  // -- What the person does
  document.addEventListener("pointerdown", (event) => {
    const view = event.target.closest?.("#drag");
    if (!view || running || event.button) return;
    event.preventDefault();
    view.focus({ focusVisible: false });
    view.setPointerCapture(event.pointerId);
    const start = where(event), reach = 12 * side / view.getBoundingClientRect().width;
    const held = tool === "points" ? near(start, reach) : null;
    const open = tool === "points" && pairs.at(-1) && !pairs.at(-1).to;
    let before = start;
    if (tool === "points" && !(held && !open)) set(start);
    if (tool === "brush" || tool === "erase") stroke(start, start);
    const move = (moved) => {
      const now = where(moved), far = Math.hypot(now[0] - start[0], now[1] - start[1]) > reach / 3;
      if (tool === "brush" || tool === "erase") stroke(before, now);
      else if (tool === "rectangle") { corner = [start, now]; draw(); }
      else if (held && !open) { held[0][held[1]] = now; draw(); }
      else if (far || pairs.at(-1).pulled) { Object.assign(pairs.at(-1), { to: now, pulled: true }); draw(); }
      before = now;
    };
    const end = () => {
      view.removeEventListener("pointermove", move);
      if (corner) { rectangle(...corner); corner = null; }
      changed();
    };
    view.addEventListener("pointermove", move);
    view.addEventListener("pointerup", end, { once: true });
    view.addEventListener("pointercancel", end, { once: true });
  });
  document.addEventListener("keydown", (event) => {
    if (event.target !== svg() || event.ctrlKey || event.metaKey || event.altKey || running) return;
    const step = (event.shiftKey ? 8 : 1) * Math.max(side / 128, 1);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      const [x, y] = cursor || [side / 2, side / 2];
      cursor = [Math.round(clamp(x + moves[event.key][0])), Math.round(clamp(y + moves[event.key][1]))];
      draw();
    } else if (event.key === "Enter" || event.key === " ") {
      cursor ||= [Math.round(side / 2), Math.round(side / 2)];
      set([...cursor]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      const last = pairs.at(-1);
      if (last?.to) last.to = null; else pairs.pop();
      changed();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("focusin", (event) => { if (event.target === svg()) { cursor ||= [Math.round(side / 2), Math.round(side / 2)]; draw(); } });
  document.addEventListener("focusout", (event) => { if (event.target === svg()) draw(); });
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("button");
    if (pressed?.id === "drag-clear") { pairs.length = 0; unpaint(); changed(); }
    if (pressed?.id === "drag-go" && pairs.length) {
      running = pairs.map((pair) => pair.from);
      window.emitEvent("studio", { what: "drag", pairs: pairs.map((pair) => [...pair.from, ...pair.to]), mask: bits() });
      running = null;
    }
  });
  addEventListener("resize", draw);

  // -- What the server says
  function open(size, key) {
    const field = canvas();
    if (!field) return;
    if (size !== side || field.width !== size) { side = size; field.width = field.height = size; painted = false; field.classList.remove("on"); pairs.length = 0; }
    if (key !== face) { face = key; }
    running = null;
    changed();
  }
  function progress(points) { running = points; draw(); }
  function done(key, points, arrived) {
    face = key; running = null;
    if (arrived) pairs.length = 0;
    else pairs.forEach((pair, number) => { if (points[number]) pair.from = points[number].map(round); });
    changed();
  }
  return { open, at: progress, done, pairs, tool: (name) => { tool = name; svg().dataset.tool = name; document.body.dataset.dragTool = name; } };
})();
