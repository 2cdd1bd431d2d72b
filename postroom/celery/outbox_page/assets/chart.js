// A small chart of an hour: one point a minute, gaps where nothing is known.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240, HEIGHT = 56;

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function chart(points, label) {
  const svg = shape("svg", {
    class: "outbox-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    role: "img", "aria-label": label,
  });
  const most = Math.max(1e-9, ...points.filter((p) => p !== null));
  const x = (index) => (index * WIDTH) / Math.max(1, points.length - 1);
  const y = (value) => HEIGHT - 3 - (value / most) * (HEIGHT - 8);
  for (const run of runs(points)) {
    const line = run.map(([index, value]) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`);
    if (line.length === 1) line.push(`${(x(run[0][0]) + 2).toFixed(1)},${y(run[0][1]).toFixed(1)}`);
    const last = line[line.length - 1].split(",")[0];
    const first = line[0].split(",")[0];
    svg.append(shape("polygon", { class: "area", points: `${first},${HEIGHT} ${line.join(" ")} ${last},${HEIGHT}` }));
    svg.append(shape("polyline", { class: "line", points: line.join(" ") }));
  }
  return svg;
}

function runs(points) {
  const found = [];
  let run = [];
  points.forEach((value, index) => {
    if (value === null) {
      if (run.length) found.push(run);
      run = [];
    } else run.push([index, value]);
  });
  if (run.length) found.push(run);
  return found;
}
