"use strict";
// What the model wrote goes into the page by textContent alone: it is never read as HTML.
const PAGE = 20;
const groups = JSON.parse(document.getElementById("samples").textContent);
const form = document.querySelector("form");
const main = document.querySelector("main");
const more = document.getElementById("more");
const lowest = groups.reduce((low, { rows }) => rows.reduce((m, r) => Math.min(m, r.log_likelihood ?? 0), low), 0);
let found = [];
let shown = 0;

function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function counted(count, name) {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

function bar(label, share, pull) {
  const fact = element("span", "", label);
  const outer = element("span", "bar");
  const inner = element("i", pull ? "pull" : "");
  inner.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  outer.append(inner);
  fact.append(outer);
  return fact;
}

function card(row) {
  const box = element("section", "row");
  const facts = element("div", "facts");
  facts.append(element("span", "", `sample ${row.number}`));
  if (row.weight !== null) {
    const sign = row.weight < 0 ? "" : "+";
    facts.append(bar(`weight ${sign}${row.weight.toFixed(3)}`, Math.abs(row.weight), row.weight < 0));
  }
  if (row.log_likelihood !== null) {
    const share = lowest < 0 ? 1 - row.log_likelihood / lowest : 1;
    facts.append(bar(`log p(gold) ${row.log_likelihood.toFixed(3)}`, share, false));
  }
  if (row.reward !== null) facts.append(element("span", "", `reward ${row.reward.toFixed(2)}`));
  if (row.answer !== null) facts.append(element("span", "text", `answer "${row.answer}"`));
  if (row.right !== null) facts.append(element("span", row.right ? "right" : "wrong", row.right ? "right" : "wrong"));
  if (row.length !== null) facts.append(element("span", "", `${row.length} tokens`));
  for (const flag of ["empty", "truncated"]) if (row[flag]) facts.append(element("span", "flag", flag));
  box.append(facts, element("p", "text", row.rationale));
  return box;
}

function article(group, rows) {
  const made = element("article", "");
  made.append(element("h2", "text", `${group.split} · step ${group.step} · ${group.id}`));
  made.append(element("p", "question text", group.prompt));
  made.append(element("p", "gold text", `gold: ${group.gold.join(" | ")}`));
  for (const row of rows) made.append(card(row));
  return made;
}

function matching(group) {
  const want = form.elements;
  if (want.split.value && group.split !== want.split.value) return [];
  if (want.step.value && String(group.step) !== want.step.value) return [];
  const text = want.text.value.toLowerCase();
  const has = (value) => (value ?? "").toLowerCase().includes(text);
  const asked = has(group.id) || has(group.prompt) || group.gold.some(has);
  return group.rows.filter(
    (row) =>
      (!want.wrong.checked || row.right === false) &&
      (!want.empty.checked || row.empty) &&
      (!want.truncated.checked || row.truncated) &&
      (!want.top.checked || row.top) &&
      (asked || has(row.rationale) || has(row.answer)),
  );
}

function show() {
  for (const [group, rows] of found.slice(shown, shown + PAGE)) main.append(article(group, rows));
  shown = Math.min(found.length, shown + PAGE);
  more.hidden = shown === found.length;
  more.textContent = `show more (${counted(found.length - shown, "question")})`;
}

function filter() {
  found = groups.map((group) => [group, matching(group)]).filter(([, rows]) => rows.length);
  const count = found.reduce((sum, [, rows]) => sum + rows.length, 0);
  form.querySelector("output").textContent = `${counted(count, "sample")} of ${counted(found.length, "question")}`;
  main.replaceChildren();
  shown = 0;
  show();
}

for (const name of ["split", "step"]) {
  const values = [...new Set(groups.map((group) => group[name]))];
  for (const value of values) form.elements[name].append(new Option(value, value));
}
// The address may hold a filter, as in samples.html#split=train&wrong=1.
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  const field = form.elements.namedItem(name);
  if (field instanceof HTMLInputElement && field.type === "checkbox") field.checked = true;
  else if (field instanceof HTMLElement) field.value = value;
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", filter);
more.addEventListener("click", show);
filter();
