// What made a number: its rows, with the verdict on their mean, or the run of a figure.
const dialog = document.getElementById("provenance");
const body = document.getElementById("provenance-body");
const title = document.getElementById("provenance-title");
const FIRST = ["protocol", "value", "seed", "config digest", "row digest", "commit", "device", "versions", "wall seconds", "date"];

function fields(pairs) {
  const order = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const sorted = [...pairs].sort((a, b) => order(a[0]) - order(b[0]));
  return make("dl", { class: "fields" }, ...sorted.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function rowOf(place, open) {
  const [kind, line, values] = DATA.rows[place];
  const pairs = DATA.fields[kind].map((name, index) => [name, values[index]]);
  const get = (name) => pairs.find((pair) => pair[0] === name)?.[1];
  const what = [get("dataset"), get("metric"), get("source"), get("setting")].filter(Boolean).join(", ");
  const summary = make("summary", {}, make("b", {}, get("value") ?? `${get("ours")} s`), ` ${what}${get("seed") ? `, seed ${get("seed")}` : ""}`);
  return make("details", { class: "row", open }, summary, command(line), fields(pairs));
}

function showRows(places, verdict) {
  const parts = [];
  title.textContent = verdict ? verdict.what : "Provenance";
  if (verdict) {
    const said = [verdict.reason && `${verdict.says}: ${verdict.reason}.`, !verdict.reason && `${verdict.says}.`, verdict.basis && `Held to: ${verdict.basis}.`];
    parts.push(make("p", {}, said.filter(Boolean).join(" ")));
    if (verdict.command) parts.push(command(verdict.command));
  }
  if (places.length > 1) parts.push(make("p", { class: "small" }, `Made of ${places.length} stored rows:`));
  body.replaceChildren(...parts, ...places.map((place, index) => rowOf(place, index === 0)));
  open();
}

function showFigure(figure) {
  title.textContent = figure.title;
  body.replaceChildren(make("p", {}, `${figure.artifact}`), command(figure.command), fields(figure.made));
  open();
}

function open() {
  dialog.showModal();
  body.scrollTop = 0;
}

dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-rows], [data-verdict-place]");
  if (!button) return;
  const verdict = DATA.verdicts[button.dataset.verdictPlace];
  const places = (button.dataset.rows ?? "").split(" ").filter(Boolean).map(Number);
  showRows(places.length ? places : (verdict?.rows ?? []), verdict);
});
