// A card a figure. One slider moves its pictures, the mark in its curves, and what is said of both.
const place = document.getElementById("gallery");
const MOST = 560; // css pixels of a picture's width
let numbered = 0;

function pictureOf(picture, figure) {
  const scale = Math.max(1, Math.min(4, Math.floor(MOST / picture.width)));
  const image = make("img", { width: picture.width * scale, height: picture.height * scale, class: picture.smooth ? "smooth" : "", loading: "lazy", decoding: "async" });
  const frame = (position) => {
    const index = Math.min(position, picture.frames.length - 1);
    image.src = picture.frames[index];
    image.alt = [figure.of, figure.title, picture.name, picture.frames.length > 1 ? figure.positions[index] : ""].filter(Boolean).join(": ");
  };
  const element = make("figure", { class: "picture" }, make("figcaption", {}, picture.name), image);
  element.style.maxWidth = `${picture.width * scale}px`;
  return { element, frame };
}

function card(figure) {
  const pictures = figure.pictures.map((picture) => pictureOf(picture, figure));
  const charts = figure.plots.map((plot) => chart(plot));
  const source = make("button", { type: "button", class: "source" }, "Provenance");
  source.addEventListener("click", () => showFigure(figure));
  const head = make("div", { class: "head" }, make("div", {}, make("h3", {}, figure.title), make("p", { class: "small" }, figure.of)), source);
  const changing = make("div", { class: "changing" });
  const parts = [head];
  let input = null, output = null;
  if (figure.positions.length > 1) {
    const id = `slider-${numbered++}`;
    input = make("input", { type: "range", id, min: 0, max: figure.positions.length - 1, step: 1, value: 0 });
    output = make("output", { for: id });
    parts.push(make("div", { class: "slider" }, make("label", { for: id }, figure.slider), input, output));
  }
  const beside = make("div", { class: "beside" });
  if (pictures.length) beside.append(make("div", { class: "pictures" }, ...pictures.map((one) => one.element)));
  if (charts.length || figure.plotAt.length) beside.append(make("div", { class: "plots" }, changing, ...charts.map((one) => one.element)));
  parts.push(beside);
  if (figure.notes.length) parts.push(make("details", { class: "notes" }, make("summary", {}, "Notes"), make("ul", {}, ...figure.notes.map((note) => make("li", {}, note)))));

  function move(position) {
    pictures.forEach((one) => one.frame(position));
    if (figure.marks.length) charts.forEach((one) => one.to(figure.marks[position]));
    if (figure.plotAt.length) changing.replaceChildren(chart(figure.plotAt[position]).element);
    if (output) {
      output.textContent = figure.positions[position];
      input.setAttribute("aria-valuetext", figure.positions[position]);
    }
  }
  input?.addEventListener("input", () => move(Number(input.value)));
  move(0);
  return make("article", { class: `figure${pictures.length ? "" : " only-plots"}`, "data-artifact": figure.artifact, "data-title": figure.title }, ...parts);
}

// Below the claim: the first images of both priors of its first comparison.
const hero = document.getElementById("hero");
if (hero) {
  const figure = DATA.figures[Number(hero.dataset.figurePlace)];
  for (const name of ["EBM prior", "Gaussian prior"]) {
    const picture = figure.pictures.find((each) => each.name === name);
    const one = pictureOf(picture, figure);
    one.frame(0);
    one.element.querySelector("img").style.aspectRatio = picture.width / (picture.height / 2 - 1); // the upper half
    one.element.querySelector("figcaption").textContent = `${name}: ${figure.of}`;
    one.element.style.maxWidth = "none";
    hero.append(one.element);
  }
}

// Cards are made when they come near: a page of everything has some hundred pictures.
if (place) {
  const kind = document.getElementById("kind"), model = document.getElementById("model"), shown = document.getElementById("shown");
  const slots = DATA.figures.map((figure) => ({ figure, slot: make("div", { class: "slot", "data-figure": figure.artifact }), made: false }));
  place.append(...slots.map((one) => one.slot));
  const build = (one) => {
    if (one.made) return;
    one.made = true;
    one.slot.append(card(one.figure));
  };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) build(slots.find((one) => one.slot === entry.target));
  }, { rootMargin: "800px" });
  slots.forEach((one) => near.observe(one.slot));
  const filter = () => {
    let count = 0;
    for (const one of slots) {
      const fits = (!kind.value || one.figure.kind === kind.value) && (!model.value || one.figure.of === model.value);
      one.slot.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${slots.length} figures`;
  };
  kind.addEventListener("change", filter);
  model.addEventListener("change", filter);
  filter();
  addEventListener("beforeprint", () => slots.filter((one) => !one.slot.hidden).forEach(build));
}
