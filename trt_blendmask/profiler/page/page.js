// Tables of layers: a search box that filters, and heads that sort.
"use strict";
for (const box of document.querySelectorAll(".searched")) {
  const body = box.querySelector("tbody"), rows = [...body.rows], heads = [...box.querySelectorAll("th")];
  const input = box.querySelector("input"), told = box.querySelector("output");
  const words = rows.map((row) => row.textContent.toLowerCase());
  const summed = heads.findIndex((head) => head.classList.contains("summed"));
  const times = rows.map((row) => number(row.cells[summed]));

  function number(cell) {
    return parseFloat(cell.textContent.replaceAll(",", "")) || 0;
  }

  function search() {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0, ms = 0;
    rows.forEach((row, k) => {
      row.hidden = !wanted.every((word) => words[k].includes(word));
      if (!row.hidden) { count += 1; ms += times[k]; }
    });
    told.textContent = `${count} of ${rows.length} layers, ${ms.toPrecision(3)} ms`;
  }

  function sort(column) {
    const head = heads[column], numeric = head.classList.contains("number");
    const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
    heads.forEach((other) => { other.ariaSort = null; });
    head.ariaSort = down ? "descending" : "ascending";
    const key = (row) => (numeric ? number(row.cells[column]) : row.cells[column].textContent);
    const compare = (a, b) => (numeric ? key(a) - key(b) : key(a).localeCompare(key(b), "en", { numeric: true }));
    body.append(...[...rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  input.addEventListener("input", search);
  search();
}
