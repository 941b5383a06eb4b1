// What is asked of a page from within. Each function is sent to the browser as it stands: it may use nothing around it.

/** What is wider than the window. A box that scrolls by itself may be: on paper nothing may. */
export function overflows(paper) {
  const width = document.documentElement.clientWidth;
  const found = [];
  if (document.scrollingElement.scrollWidth > width) found.push(`the page is ${document.scrollingElement.scrollWidth} px wide in a window of ${width}`);
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".skip") || (!paper && element.closest(".scroll"))) continue;
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > width + 1 || box.left < -1)) found.push(`<${element.localName}> ${element.textContent.slice(0, 40)} reaches from ${box.left} to ${box.right} of ${width}`);
    if (found.length > 4) break;
  }
  return found;
}

/** The drawing: no text over another or under a bar, nothing outside, nothing too small to see. */
export function drawing() {
  const found = [];
  for (const svg of document.querySelectorAll("svg.drawing")) {
    const frame = svg.getBoundingClientRect();
    // A picture in the picture cuts off what is too wide for it.
    const within = (text) => {
      const [box, clip] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
      const [left, right] = [Math.max(box.left, clip.left), Math.min(box.right, clip.right)];
      return text.ownerSVGElement === svg ? box : { left, right, top: box.top, bottom: box.bottom, height: box.height };
    };
    const say = (what, element) => found.length < 6 && found.push(`${what}: ${element.localName} ${element.textContent.slice(0, 60)}`);
    const texts = [...svg.querySelectorAll("text")].map((text) => [text, within(text)]).filter(([, box]) => box.right > box.left);
    const bars = [...svg.querySelectorAll("rect")].map((bar) => [bar, bar.getBoundingClientRect()]);
    const marks = [...svg.querySelectorAll(".mark")].map((mark) => [mark, mark.getBoundingClientRect()]);
    const meet = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
    // Glyphs leave room above and below them: of two lines it is what is written that must not meet.
    const ink = (box) => ({ left: box.left, right: box.right, top: box.top + box.height * 0.18, bottom: box.bottom - box.height * 0.18 });
    const sorted = texts.map(([text, box]) => [text, ink(box)]).sort(([, a], [, b]) => a.top - b.top);
    for (const [at, [text, box]] of sorted.entries()) {
      for (const [other, beside] of sorted.slice(at + 1)) {
        if (beside.top > box.bottom) break;
        if (meet(box, beside)) say(`is written over ${other.textContent.slice(0, 40)}`, text);
      }
      for (const [bar, beside] of [...bars, ...marks]) if (meet(box, beside)) say(`is written over a ${bar.localName}`, text);
    }
    for (const [element, box] of [...texts, ...bars, ...marks]) {
      if (box.left < frame.left - 0.5 || box.right > frame.right + 0.5 || box.top < frame.top - 0.5 || box.bottom > frame.bottom + 0.5) say("is outside of the drawing", element);
    }
    for (const [bar, box] of bars) if (box.width < 2 || box.height < 5) say(`is ${box.width} × ${box.height} px`, bar);
    for (const [mark, box] of marks) if (box.width < 4 || box.height < 4) say(`is ${box.width} × ${box.height} px`, mark);
    const scale = svg.getScreenCTM().a;
    for (const [text] of texts) {
      const size = Number.parseFloat(getComputedStyle(text).fontSize) * scale;
      if (size < 9.5) say(`is written ${size} px high`, text);
    }
  }
  return found;
}

/** Links lead somewhere, ids are there once, and everything has a name. */
export function links() {
  const found = [];
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  const once = new Set(ids);
  if (once.size < ids.length) found.push(`${ids.length - once.size} ids are there twice`);
  for (const link of document.querySelectorAll("a")) {
    const to = link.getAttribute("href") ?? "";
    if (!/^#[a-z]+(-\d+)?$/.test(to) || !once.has(to.slice(1))) found.push(`a link leads to ${to}`);
  }
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (/^on|^(src|action|formaction|data|ping|background|poster|srcset)$/.test(name)) found.push(`<${element.localName} ${name}="${value.slice(0, 40)}">`);
      if (name === "style" && element !== document.documentElement) found.push(`<${element.localName}> has a style of its own`);
    }
    if (["script", "img", "iframe", "object", "embed", "link", "form", "base", "video", "audio", "image", "use", "foreignObject"].includes(element.localName)) found.push(`there is a <${element.localName}>`);
  }
  return found.slice(0, 6);
}

/** Text of the drawing stands out 4.5 to 1, shapes 3 to 1: axe does not judge what is drawn. */
export function contrast() {
  const found = new Set();
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (...colors) => {
    canvas.globalAlpha = 1;
    for (const [color, alpha] of colors) {
      canvas.globalAlpha = alpha;
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => (Math.max(light(one), light(other)) + 0.05) / (Math.min(light(one), light(other)) + 0.05);
  const ground = getComputedStyle(document.body).backgroundColor;
  for (const element of document.querySelectorAll("svg text, svg rect, svg .mark, svg .proves, svg .cut")) {
    const { fill, stroke, fillOpacity } = getComputedStyle(element);
    const colors = element.localName === "text" ? [[fill, 1]] : [[fill, Number(fillOpacity)], [stroke, 1]].filter(([color]) => color !== "none");
    const best = Math.max(...colors.map((color) => ratio(pixel([ground, 1], color), pixel([ground, 1]))));
    if (best < (element.localName === "text" ? 4.5 : 3)) found.add(`${element.localName} ${element.getAttribute("class") ?? ""} stands out ${best.toFixed(2)} to 1`);
  }
  return [...found];
}

/** Nothing moves. */
export function moves() {
  const found = document.getAnimations().map((animation) => `an animation: ${animation.animationName ?? animation.transitionProperty}`);
  for (const element of document.querySelectorAll("body, body *")) {
    const style = getComputedStyle(element);
    if (style.transitionDuration !== "0s" || style.animationName !== "none" || style.scrollBehavior === "smooth") found.push(`<${element.localName}> moves`);
    if (found.length > 4) break;
  }
  return found;
}

/** With a system's own few colours, each bar and mark still stands out from what is behind it. */
export function stands() {
  const found = new Set();
  const ground = getComputedStyle(document.body).backgroundColor;
  for (const shape of document.querySelectorAll("svg rect, svg .mark, svg .proves, svg .cut")) {
    const { fill, stroke } = getComputedStyle(shape);
    const seen = [fill, stroke].some((color) => color !== "none" && color !== ground);
    if (!seen) found.add(`${shape.getAttribute("class")} is of the colour of the ground, ${ground}`);
  }
  for (const text of document.querySelectorAll("svg text")) if (getComputedStyle(text).fill === ground) found.add("text of the drawing is of the colour of the ground");
  return [...found];
}

/** Text that its own box cuts off. */
export function cut() {
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest("svg, .scroll") || !element.childNodes.length) continue;
    const { overflowX, overflowY, textOverflow } = getComputedStyle(element);
    const hides = [overflowX, overflowY].some((overflow) => overflow === "hidden" || overflow === "clip");
    if ((hides || textOverflow === "ellipsis") && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1)) found.push(`<${element.localName}> ${element.textContent.slice(0, 40)}`);
  }
  return found.slice(0, 4);
}

/** Where the keyboard is: which of all places that it can come to, whether that can be seen, and is marked. */
export function focused() {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const all = [...document.querySelectorAll("a[href], summary, [tabindex='0']")];
  const box = element.getBoundingClientRect();
  const drawn = (of) => {
    const style = getComputedStyle(of);
    return [style.outlineStyle !== "none" && `${style.outlineWidth} ${style.outlineColor}`, style.stroke, style.strokeWidth, style.fill].join();
  };
  const look = () => [element, ...element.querySelectorAll("*")].map(drawn).join(";");
  const lit = look();
  element.blur();
  const unlit = look();
  element.focus({ preventScroll: true });
  return {
    place: all.indexOf(element), of: all.length, what: `${element.localName} ${element.textContent.trim().slice(0, 40)}`,
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    marked: lit !== unlit,
  };
}

/** What is asked of the target of a link once it was followed. */
export function arrived() {
  const target = document.querySelector(":target");
  if (!target) return `nothing is at ${location.hash}`;
  const box = target.getBoundingClientRect();
  return box.top < innerHeight && box.bottom >= 0 ? null : `what is at ${location.hash} is not in the window`;
}
