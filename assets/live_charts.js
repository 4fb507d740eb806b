// Draws panels of charts in place with Plotly.react, so that zoom, hover and hidden lines survive every update.
// Runs inside gr.HTML's js_on_load, which gives: element, props, watch. The value is JSON:
//   {"id": what is shown, if the legend does not say it, "legend": [{"name", "variant"}], "groups": [{"title", "note", "wide", "panels": [
//     {"id", "title", "note", "key": [{"name", "colour", "opacity", "pattern", "outline"}], "height", "figure": {"data", "layout"} or null}]}]}
// A trace belongs to a variant (trace.meta.variant), whose colour comes from the style sheet: --variant-0 (baseline) to --variant-7, unless
// it has its own (meta.own) or is set aside (meta.muted). Ceilings (meta.ceiling) and shapes take the quiet colour.

const root = element.querySelector(".charts");
const hidden = new Set();
let subject = ""; // zoom and hidden lines last as long as the same is shown
const coarse = window.matchMedia("(pointer: coarse)").matches;
const config = {
  displaylogo: false,
  responsive: false,
  displayModeBar: coarse ? false : "hover",
  modeBarButtons: [["resetScale2d"]],
};

function style(name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

function part(parent, selector, tag, className) {
  let node = parent.querySelector(selector);
  if (!node) {
    node = document.createElement(tag);
    node.className = className;
    parent.appendChild(node);
  }
  return node;
}

function drawLegend(entries) {
  const legend = part(root, ":scope > .legend", "div", "legend");
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "Show or hide a variant");
  const key = JSON.stringify(entries);
  if (legend.dataset.key === key) return;
  legend.dataset.key = key;
  legend.replaceChildren(
    ...entries.map(({ name, variant }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `legend-item v${variant}`;
      button.setAttribute("aria-pressed", String(!hidden.has(variant)));
      button.append(Object.assign(document.createElement("i"), { className: "swatch" }), name);
      button.onclick = () => {
        hidden.has(variant) ? hidden.delete(variant) : hidden.add(variant);
        button.setAttribute("aria-pressed", String(!hidden.has(variant)));
        draw();
      };
      return button;
    }),
  );
}

function coloured(trace, look) {
  const meta = trace.meta || {};
  if (meta.ceiling) return { ...trace, line: { ...trace.line, color: look.quiet }, textfont: { size: 11, color: look.quiet } };
  if (meta.variant === undefined) return trace;
  const colour = meta.muted ? look.quiet : look.colours[meta.variant % look.colours.length];
  const copy = { ...trace, visible: !hidden.has(meta.variant) };
  if (meta.own) return copy;
  if (trace.line) copy.line = { ...trace.line, color: colour };
  if (trace.marker) {
    copy.marker = { ...trace.marker, color: colour };
    if (trace.marker.pattern) copy.marker.pattern = { ...trace.marker.pattern, fgcolor: colour, bgcolor: look.card };
    if (trace.marker.line) copy.marker.line = { ...trace.marker.line, color: colour };
  }
  return copy;
}

function themedAxis(axis, look) {
  const title = axis.title && { ...axis.title, font: { size: 12 } };
  return { ...axis, title, gridcolor: look.grid, zerolinecolor: look.grid, linecolor: look.axis, tickcolor: look.axis, automargin: true, fixedrange: coarse };
}

function themed(figure, look) {
  const layout = { ...figure.layout };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(name)) layout[name] = themedAxis(layout[name], look);
  }
  for (const name of ["xaxis", "yaxis"]) layout[name] = layout[name] || themedAxis({}, look);
  layout.shapes = (layout.shapes || []).map((shape) => ({ ...shape, fillcolor: look.grid, line: { ...shape.line, color: look.quiet } }));
  layout.annotations = (layout.annotations || []).map((note) => ({ ...note, font: { ...note.font, color: look.quiet } }));
  return {
    data: figure.data.map((trace) => {
      const copy = coloured(trace, look);
      for (const error of ["error_x", "error_y"]) if (trace[error]) copy[error] = { ...trace[error], color: look.ink };
      return copy;
    }),
    layout: {
      ...layout,
      autosize: true,
      uirevision: subject,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      dragmode: coarse ? false : "zoom",
      font: { family: look.family, size: 12, color: look.quiet },
      hoverlabel: { bgcolor: look.card, bordercolor: look.grid, font: { family: look.family, color: look.ink } },
    },
  };
}

function drawNote(parent, words) {
  const note = part(parent, ":scope > .note", "p", "note");
  note.textContent = words || "";
  note.hidden = !words;
}

function drawKey(card, entries) {
  const list = part(card, ":scope > .key", "ul", "key");
  list.hidden = !entries.length;
  list.replaceChildren(
    ...entries.map(({ name, colour, opacity, pattern, outline }) => {
      const swatch = Object.assign(document.createElement("i"), { className: pattern ? "hatched" : outline ? "outlined" : "" });
      if (colour && !outline) swatch.style.background = colour;
      if (opacity) swatch.style.opacity = opacity;
      if (pattern) swatch.dataset.pattern = pattern;
      const item = document.createElement("li");
      item.append(swatch, name);
      return item;
    }),
  );
}

// A picture of a panel as it is now, on the card's own ground and with its title.
function savePng(plot, panel, look) {
  const { data, layout } = themed(panel.figure, look);
  const title = { text: escaped(panel.title), x: 0, xref: "paper", xanchor: "left", font: { size: 15, color: look.ink } };
  const shown = Object.fromEntries(["xaxis", "yaxis"].map((name) => [name, { ...layout[name], range: plot.layout[name].range }]));
  const margin = { ...layout.margin, t: 48, l: 16, r: 16, b: 56 };
  const picture = { data, layout: { ...layout, ...shown, title, margin, paper_bgcolor: look.card }, config };
  const size = { width: plot.clientWidth || 600, height: (plot.clientHeight || 200) + 56 };
  return Plotly.downloadImage(picture, { format: "png", scale: 2, filename: panel.id, ...size });
}

function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function drawPanel(grid, panel, look) {
  const card = part(grid, `:scope > [data-panel="${panel.id}"]`, "figure", "panel");
  card.dataset.panel = panel.id;
  const title = part(card, ":scope > figcaption", "figcaption", "");
  if (title.textContent !== panel.title) title.textContent = panel.title;
  const plot = part(card, ":scope > .plot", "div", "plot");
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", panel.title);
  const png = part(card, ":scope > .png", "button", "png");
  if (!png.textContent) Object.assign(png, { type: "button", textContent: "PNG", ariaLabel: `Save ${panel.title} as a PNG picture` });
  png.hidden = !panel.figure;
  png.onclick = () => savePng(plot, panel, look);
  plot.style.height = `${panel.height || 200}px`;
  drawKey(card, panel.key || []);
  drawNote(card, panel.note);
  plot.hidden = !panel.figure;
  if (panel.figure) {
    const key = JSON.stringify([panel.figure, look, [...hidden]]);
    if (plot.drawn !== key) {
      const { data, layout } = themed(panel.figure, look);
      Plotly.react(plot, data, layout, config);
      plot.drawn = key;
    }
  }
  return panel.id;
}

function drawGroup(group, index, look) {
  const section = part(root, `:scope > [data-group="${index}"]`, "section", "group");
  section.dataset.group = index;
  const heading = part(section, ":scope > h4", "h4", "");
  heading.textContent = group.title || "";
  heading.hidden = !group.title;
  drawNote(section, group.note);
  const grid = part(section, ":scope > .grid", "div", "grid");
  grid.classList.toggle("wide", Boolean(group.wide));
  const drawn = new Set(group.panels.map((panel) => drawPanel(grid, panel, look)));
  for (const card of [...grid.children]) if (!drawn.has(card.dataset.panel)) card.remove();
}

function draw() {
  if (!window.Plotly || !root.isConnected) return;
  const value = props.value ? JSON.parse(props.value) : { groups: [], legend: [] };
  const look = {
    colours: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => style(`--variant-${i}`)),
    ink: style("--ink"),
    quiet: style("--quiet"),
    grid: style("--hairline"),
    axis: style("--hairline"),
    card: style("--card"),
    family: getComputedStyle(element).fontFamily,
  };
  root.parentElement.hidden = !value.groups.length;
  const shown = JSON.stringify([value.id, value.legend]);
  if (shown !== subject) hidden.clear();
  subject = shown;
  drawLegend(value.legend || []);
  value.groups.forEach((group, index) => drawGroup(group, index, look));
  for (const section of [...root.querySelectorAll(":scope > section")]) {
    if (Number(section.dataset.group) >= value.groups.length) section.remove();
  }
}

let resizing = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(resizing);
  resizing = requestAnimationFrame(() => root.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.Plots.resize(plot)));
}).observe(root);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
watch("value", draw);
draw();
