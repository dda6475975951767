// Elements without markup in texts: everything stored reaches the page as a text node or an attribute.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return element;
}

let told;
function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  clearTimeout(told);
  told = setTimeout(() => (place.textContent = ""), 2500);
}

// The clipboard of a page that was opened from a file may be refused: then the selection is copied.
async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = make("textarea", { readonly: true, class: "offscreen", "aria-hidden": "true" });
    field.value = text;
    (near.closest("dialog") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    near.focus();
    if (!done) return say("The browser does not let this page copy: select the command by hand");
  }
  say("Copied");
}

function command(text) {
  return make("div", { class: "command" }, make("code", {}, ...text.split(" ").flatMap((word) => [make("span", {}, word), " "])), make("button", { type: "button", class: "copy", "data-copy": text }, "Copy"));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button.dataset.copy, button);
});
