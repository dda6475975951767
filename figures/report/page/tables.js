// Every table: sorted by its headers, filtered by its columns and by words.
const TABLES = {};
const PER_PAGE = matchMedia("(max-width: 48rem)").matches ? 6 : 15;
const words = (cell) => (typeof cell === "string" ? cell : cell.t);

function cellFor(cell, column) {
  if (typeof cell === "string") return document.createTextNode(cell);
  const chip = cell.how ? `chip ${cell.how}` : "number";
  if (cell.r === undefined && cell.v === undefined) return cell.how ? make("span", { class: chip }, cell.t) : document.createTextNode(cell.t);
  return make("button", { type: "button", class: chip, "data-rows": (cell.r ?? []).join(" "), "data-verdict-place": cell.v, title: "Show the provenance" }, cell.t);
}

function showTable(place) {
  const data = DATA.tables.find((table) => table.name === place.dataset.table);
  const table = make("table", { class: "display compact" });
  const bar = make("div", { class: "filters" });
  place.append(bar, table);
  const columns = data.columns.map((column, index) => ({
    title: column.title,
    type: column.number ? "num" : "string",
    className: column.number ? "right" : "",
    render: (cell, type) => {
      if (type === "display") return cellFor(cell, column);
      if (type === "sort" || type === "type") return column.number ? (cell.n ?? null) : words(cell).toLowerCase();
      return words(cell);
    },
    data: index,
    createdCell: (element, cell) => {
      element.dataset.label = column.title; // on a phone a row is a card, whose cells say what they are
      if (words(cell) === "-") element.classList.add("nothing");
    },
  }));
  const made = new DataTable(table, {
    data: data.lines,
    columns,
    order: [],
    pageLength: PER_PAGE,
    autoWidth: false,
    deferRender: true,
    scrollX: false,
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: data.lines.length > PER_PAGE ? "paging" : null },
    language: { info: "_START_ to _END_ of _TOTAL_", infoEmpty: "none", infoFiltered: "(of _MAX_)", emptyTable: "nothing was measured", zeroRecords: "nothing matches: clear a filter" },
  });
  const wrapped = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${data.title}, scrolls sideways` });
  table.before(wrapped);
  wrapped.append(table);
  const selects = data.columns.map((column, index) => column.filter && filterOf(made, data, column, index, bar)).filter(Boolean);
  const sort = make("select", { "aria-label": `Sort ${data.title}` }, make("option", { value: "" }, "as stored"), ...data.columns.flatMap((column, index) => [["asc", "up"], ["desc", "down"]].map(([way, word]) => make("option", { value: `${index} ${way}` }, `${column.title}, ${word}`))));
  sort.addEventListener("change", () => {
    const [index, way] = sort.value.split(" ");
    made.order(way ? [[Number(index), way]] : []).draw();
  });
  const search = make("input", { type: "search", placeholder: "words", "aria-label": `Search ${data.title}` });
  const clear = make("button", { type: "button", class: "clear" }, "Clear");
  bar.append(make("label", { class: "choice by" }, "Sort", sort), make("label", { class: "choice" }, "Search", search), clear);
  search.addEventListener("input", () => made.search(search.value).draw());
  clear.addEventListener("click", () => {
    search.value = sort.value = "";
    selects.forEach((select) => (select.value = ""));
    made.search("").columns().search("").order([]).draw();
  });
  TABLES[data.name] = { made, data, selects };
}

function filterOf(made, data, column, index, bar) {
  const counts = new Map();
  for (const line of data.lines) counts.set(words(line[index]), (counts.get(words(line[index])) ?? 0) + 1);
  const values = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const select = make("select", { "data-column": column.title }, make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value || "-")));
  select.addEventListener("change", () => {
    made.column(index).search(select.value === "" ? "" : (text) => text === select.value).draw();
  });
  bar.append(make("label", { class: "choice" }, column.title, select));
  return select;
}

for (const place of document.querySelectorAll(".table")) if (!place.closest("[hidden]")) showTable(place);

// A hidden table is made when it is first shown: its columns then have their widths.
const which = document.getElementById("which");
which?.addEventListener("change", () => {
  for (const one of document.querySelectorAll(".one")) {
    one.hidden = one.id !== `table-${which.value}`;
    const place = one.querySelector(".table");
    if (!one.hidden && !place.hasChildNodes()) showTable(place);
  }
});

// A verdict in the tally shows the means that have it.
const tally = [...document.querySelectorAll("[data-verdict]")];
for (const button of tally) {
  button.addEventListener("click", () => {
    const select = TABLES.measured.selects.find((one) => one.dataset.column === "verdict");
    if (!select) return;
    const off = button.getAttribute("aria-pressed") === "true";
    select.value = off ? "" : button.dataset.verdict;
    select.dispatchEvent(new Event("change"));
  });
}
TABLES.measured?.made.on("draw", () => {
  const chosen = TABLES.measured.selects.find((one) => one.dataset.column === "verdict")?.value ?? "";
  for (const button of tally) button.setAttribute("aria-pressed", String(button.dataset.verdict === chosen));
});

// On paper a table shows all that its filters leave, up to some pages of them.
const PRINTED = 700;
addEventListener("beforeprint", () => {
  for (const { made } of Object.values(TABLES)) {
    if (made.rows({ search: "applied" }).count() <= PRINTED) made.page.len(-1).draw(false);
  }
});
addEventListener("afterprint", () => {
  for (const { made } of Object.values(TABLES)) made.page.len(PER_PAGE).draw(false);
});
