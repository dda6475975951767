// Curves as SVG: they take the theme's colours, stay sharp in print, and are read with the mouse or the arrow keys.
// Kept plotting libraries that a Python package ships are 1.3 to 4.8 MB a page; this needs one mark, one band, one gap.
const TALL = 220, PAD = { left: 56, right: 14, top: 12, bottom: 34 };

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

function short(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function chart(plot) {
  let WIDE = 480, home = null; // the width in pixels, so that letters keep their size; where a slider stands
  const curves = plot.curves;
  const span = plot.steps && curves[0].x.length > 1 ? curves[0].x[1] - curves[0].x[0] : 0;
  const xs = curves.flatMap((curve) => curve.x);
  const x0 = Math.min(...xs), x1 = Math.max(...xs) + span || 1;
  const values = curves.flatMap((curve) => curve.y.flatMap((y, i) => (y === null ? [] : curve.band ? [y - (curve.band[i] ?? 0), y + (curve.band[i] ?? 0)] : [y])));
  let low = Math.min(...values, plot.steps ? 0 : Infinity), high = Math.max(...values);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  [low, high] = [plot.steps ? 0 : low - room, high + room];
  const X = (x) => PAD.left + ((x - x0) / (x1 - x0 || 1)) * (WIDE - PAD.left - PAD.right);
  const Y = (y) => TALL - PAD.bottom - ((y - low) / (high - low)) * (TALL - PAD.top - PAD.bottom);
  const at = (x, y) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;

  const svg = draw("svg", { class: "chart", role: "img", tabindex: "0", "aria-label": `${plot.title}, over ${plot.across}: ${curves.map((curve) => `${curve.label} ends at ${short(curve.y.at(-1))}`).join(", ")}` });
  const mark = draw("line", { class: "mark", y1: PAD.top, y2: TALL - PAD.bottom, visibility: "hidden" });
  const hover = draw("line", { class: "hover", y1: PAD.top, y2: TALL - PAD.bottom, visibility: "hidden" });

  function paint() {
    svg.setAttribute("viewBox", `0 0 ${WIDE} ${TALL}`);
    svg.replaceChildren();
    for (const y of ticks(low, high, 4)) svg.append(draw("line", { class: "grid", x1: PAD.left, x2: WIDE - PAD.right, y1: Y(y), y2: Y(y) }), draw("text", { class: "tick", x: PAD.left - 6, y: Y(y) + 3.5, "text-anchor": "end" }, short(y)));
    for (const x of ticks(x0, x1, WIDE < 380 ? 4 : 6)) svg.append(draw("text", { class: "tick", x: X(x), y: TALL - PAD.bottom + 15, "text-anchor": "middle" }, short(x)));
    svg.append(draw("text", { class: "axis", x: (PAD.left + WIDE - PAD.right) / 2, y: TALL - 4, "text-anchor": "middle" }, plot.across));
  
    if (plot.gap && curves.length > 1 && curves[0].x.length === curves[1].x.length) {
      const there = curves[0].x.map((x, i) => [x, curves[0].y[i], curves[1].y[i]]).filter(([, a, b]) => a !== null && b !== null);
      const path = [...there.map(([x, a]) => at(x, a)), ...there.reverse().map(([x, , b]) => at(x, b))];
      if (path.length) svg.append(draw("path", { class: "gap", d: `M${path.join("L")}Z` }));
    }
    curves.forEach((curve, index) => {
      if (curve.band) {
        const there = curve.x.map((x, i) => [x, curve.y[i], curve.band[i]]).filter(([, y, b]) => y !== null && b !== null);
        const path = [...there.map(([x, y, b]) => at(x, y + b)), ...there.reverse().map(([x, y, b]) => at(x, y - b))];
        svg.append(draw("path", { class: `band c${index % 6}`, d: `M${path.join("L")}Z` }));
      }
    });
    curves.forEach((curve, index) => {
      let d = "", pen = false;
      curve.x.forEach((x, i) => {
        const y = curve.y[i];
        if (y === null) return (pen = false);
        d += (pen ? "L" : "M") + at(x, y) + (plot.steps ? `L${at(x + span, y)}` : "");
        pen = true;
      });
      svg.append(draw("path", { class: `line c${index % 6}${curves.length > 1 && curve.label === "data" && !plot.gap && !plot.steps ? " dashed" : ""}`, d }));
    });
    svg.append(draw("line", { class: "base", x1: PAD.left, x2: WIDE - PAD.right, y1: TALL - PAD.bottom, y2: TALL - PAD.bottom }), mark, hover);
    if (home !== null) fill(mark, { x1: X(home), x2: X(home), visibility: "visible" }, []);
    hover.setAttribute("visibility", "hidden");
  }

  const longest = curves.reduce((a, b) => (b.x.length > a.x.length ? b : a)).x;
  const where = make("b", {}), cells = curves.map(() => make("span", { class: "value" })), gap = make("span", { class: "value" });
  const items = curves.map((curve, index) => make("li", {}, make("i", { class: `key c${index % 6}` }), curves.length > 1 || curve.label !== "value" ? `${curve.label} ` : "", cells[index]));
  const showsGap = plot.gap && curves.length > 1;
  if (showsGap) items.push(make("li", {}, make("i", { class: "key gap" }), `gap (${curves[0].label} − ${curves[1].label}) `, gap));
  const legend = make("ul", { class: "legend" }, ...items);
  const nearest = (values, x) => values.reduce((best, value, i) => (Math.abs(value + span / 2 - x) < Math.abs(values[best] + span / 2 - x) ? i : best), 0);
  let current = longest.length - 1;

  function read(x) {
    const found = curves.map((curve) => curve.y[nearest(curve.x, x)]);
    where.textContent = plot.steps ? `${short(x)} to ${short(x + span)}` : `${plot.across} ${short(x)}`;
    cells.forEach((cell, index) => {
      const band = curves[index].band?.[nearest(curves[index].x, x)];
      cell.textContent = short(found[index]) + (band === undefined || band === null ? "" : ` ± ${short(band)}`);
    });
    if (showsGap) gap.textContent = found[0] === null || found[1] === null ? "-" : short(found[0] - found[1]);
  }

  function point(place) {
    current = Math.max(0, Math.min(longest.length - 1, place));
    const x = longest[current];
    fill(hover, { x1: X(x + span / 2), x2: X(x + span / 2), visibility: "visible" }, []);
    read(x);
  }

  function leave() {
    hover.setAttribute("visibility", "hidden");
    current = home === null ? longest.length - 1 : nearest(longest, home);
    read(home ?? longest.at(-1));
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = x0 + (((event.clientX - box.left) / box.width) * WIDE - PAD.left) / (WIDE - PAD.left - PAD.right) * (x1 - x0);
    point(nearest(longest, x));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    point(Math.max(0, Math.min(longest.length - 1, current + moves[event.key])));
  });

  paint();
  leave();
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width < 60 || Math.abs(width - WIDE) < 2) return;
    WIDE = width;
    paint();
  }).observe(svg);
  const element = make("figure", { class: "plot" }, make("figcaption", {}, plot.title), svg, make("div", { class: "read" }, where, legend));
  return {
    element,
    to(x) {
      home = x;
      fill(mark, { x1: X(x), x2: X(x), visibility: "visible" }, []);
      current = nearest(longest, x);
      read(x);
    },
  };
}
