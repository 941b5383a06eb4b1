// A real browser looks at the pages of `tenure audit`: of logs of the real parts, and of generated ones.
//
//     node check.mjs [part of a page's name]…
//
// What it sees is left below target/browser as pictures, for somebody to look at.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import * as judge from "./judge.mjs";
import { generate } from "./logs.mjs";
import { PROJECT, TARGET, parts } from "./parts.mjs";

const BINARY = path.join(PROJECT, "target/debug/tenure");
const REAL = path.join(TARGET, "real");
const SHOTS = path.join(TARGET, "shots");
const PAGES = path.join(TARGET, "pages");

const WIDE = { width: 1280, height: 800 };
const NARROW = { width: 360, height: 740 };
/** A4 on its side, within the page's own margins, in pixels. */
const PAPER = { width: 1047, height: 718 };

/** How often the Tab key is pressed: a page of hundreds of marks is not walked to its end. */
const TABS = 70;
/** A picture shows so much of a page at most, and a PDF so many sheets are read. */
const TALL = 2600;
const SHEETS = 12;
/** Rows of a table and pictures of a drawing are alike: axe judges so many of each. */
const ALIKE = { rows: 40, pictures: 2 };
/** Pages that are like another one: they are looked at, and neither enlarged, walked through nor judged in the dark. */
const BRIEF = /^real-openbao-|^(week|instant|millisecond)-report$/;

/** The traces of the real parts, as the suite of the real parts left them. */
function real() {
  const servers = fs.existsSync(REAL) ? fs.readdirSync(REAL).sort() : [];
  if (!servers.length) throw new Error("there are no logs of the real parts in target/browser/real: run `make browser`, which has them made");
  return servers.map((server) => ({
    name: `real-${server}`,
    logs: path.join(REAL, server, "logs"),
    trace: ["--execution", fs.readFileSync(path.join(REAL, server, "execution"), "utf8").trim()],
    report: [],
  }));
}

/** Has the page made by the binary, with what it says in JSON beside it. */
function render(one, kind) {
  const page = path.join(PAGES, `${one.name}-${kind}.html`);
  const words = ["audit", kind, ...(one[kind] ?? one.select), "--json", "--html", page, one.logs];
  const { status, stdout, stderr, error } = spawnSync(BINARY, words, { encoding: "utf8", maxBuffer: 1 << 28 });
  if (error || status > 1) throw new Error(`tenure ${words.join(" ")}: ${error?.message ?? stderr}`);
  return { name: `${one.name}-${kind}`, kind, url: pathToFileURL(page).href, said: JSON.parse(stdout) };
}

/** Everything that is wrong with one page. */
class Check {
  wrong = [];

  constructor(tools, browser, page) {
    Object.assign(this, { tools, browser, page });
  }

  note(where, found) {
    for (const one of [found].flat().filter(Boolean)) this.wrong.push(`${this.page.name}, ${where}: ${one}`);
  }

  /** The page in a window of its own: whatever it loads, runs or complains of is noted. */
  async open(options) {
    const context = await this.browser.newContext({ viewport: WIDE, offline: true, ...options });
    const window = await context.newPage();
    const where = `${options.colorScheme ?? "light"} ${options.viewport?.width ?? WIDE.width} px`;
    window.on("request", (request) => request.url().split("#")[0] !== this.page.url && this.note(where, `it asks for ${request.url().slice(0, 80)}`));
    window.on("console", (message) => this.note(where, `the console says: ${message.text()}`));
    window.on("pageerror", (error) => this.note(where, `a script failed: ${error.message}`));
    window.on("dialog", (dialog) => this.note(where, `a dialog opens: ${dialog.message()}`));
    await window.goto(this.page.url);
    return window;
  }

  async shoot(window, what) {
    const height = await window.evaluate(() => document.documentElement.scrollHeight);
    const clip = { x: 0, y: 0, width: window.viewportSize().width, height: Math.min(height, TALL) };
    const file = path.join(SHOTS, `${this.page.name}-${what}.png`);
    return window.screenshot({ path: file, clip, fullPage: true });
  }

  async all() {
    const brief = BRIEF.test(this.page.name);
    for (const colorScheme of ["light", "dark"]) {
      // No script is needed: what is looked at is drawn without any.
      const window = await this.open({ colorScheme, javaScriptEnabled: false });
      await this.looks(window, `${colorScheme} wide`);
      await window.setViewportSize(NARROW);
      await this.looks(window, `${colorScheme} narrow`);
      if (colorScheme === "light") await this.described(window);
      if (colorScheme === "light" && !brief) {
        await this.enlarged(window);
        await this.plain(window);
      }
      await window.context().close();
    }
    await this.accessible(brief ? ["light"] : ["light", "dark"]);
    await this.printed();
    if (!brief) await this.walked();
    return this.wrong;
  }

  async looks(window, where) {
    this.note(where, await window.evaluate(judge.overflows, false));
    this.note(where, await window.evaluate(judge.drawing));
    this.note(where, await window.evaluate(judge.cut));
    this.note(where, await window.evaluate(judge.contrast));
    await this.shoot(window, where.replace(" ", "-"));
  }

  /** Twice as large: as text alone, and as the browser's zoom has it. */
  async enlarged(window) {
    await window.setViewportSize({ width: 640, height: 400 });
    this.note("at 200 %", await window.evaluate(judge.overflows, false));
    await window.setViewportSize(WIDE);
    const before = await window.evaluate(() => document.querySelector("dt, p").getBoundingClientRect().height);
    await window.evaluate(() => void (document.documentElement.style.fontSize = "200%"));
    const after = await window.evaluate(() => document.querySelector("dt, p").getBoundingClientRect().height);
    this.note("with text of 200 %", after < before * 1.8 ? `text stays ${after} px high` : null);
    this.note("with text of 200 %", await window.evaluate(judge.overflows, false));
    this.note("with text of 200 %", await window.evaluate(judge.drawing));
    await this.shoot(window, "large");
    await window.evaluate(() => document.documentElement.removeAttribute("style"));
  }

  /** With the colours of a system that has few, and for who wants nothing to move. */
  async plain(window) {
    this.note("as it is", await window.evaluate(judge.moves));
    this.note("as it is", await window.evaluate(judge.links));
    this.note("as it is", (await window.title()).startsWith("Tenure: ") ? null : "its title is another");
    for (const colorScheme of ["light", "dark"]) {
      await window.emulateMedia({ forcedColors: "active", reducedMotion: "reduce", colorScheme });
      this.note(`forced ${colorScheme} colours`, await window.evaluate(judge.stands));
      this.note(`forced ${colorScheme} colours`, await window.evaluate(judge.moves));
      await this.shoot(window, `forced-${colorScheme}`);
    }
    await window.emulateMedia({ forcedColors: "none", reducedMotion: "no-preference", colorScheme: "light" });
  }

  /** What a screen reader is told: a name for everything, and in the tables all that the JSON says. */
  async described(window) {
    const where = "for a screen reader";
    const session = await window.context().newCDPSession(window);
    const { nodes } = await session.send("Accessibility.getFullAXTree");
    const heard = nodes.filter((node) => !node.ignored).map((node) => ({ role: node.role?.value, name: node.name?.value ?? "", described: node.description?.value ?? "" }));
    for (const role of ["link", "region", "table", "RootWebArea", "graphics-symbol", "graphics-document", "image"]) {
      const nameless = heard.filter((node) => node.role === role && !node.name.trim());
      this.note(where, nameless.length ? `${nameless.length} of role ${role} have no name` : null);
    }
    const bare = (name) => name.replace(/\s+/g, " ").trim();
    const names = new Set(heard.map((node) => bare(node.name)));
    const shapes = await window.evaluate(() => [...document.querySelectorAll("svg.drawing")].map((svg) => ({
      named: [svg.querySelector(":scope > title")?.textContent, svg.querySelector(":scope > desc")?.textContent],
      bars: [...svg.querySelectorAll("rect, .mark")].map((shape) => shape.querySelector("title")?.textContent ?? shape.closest("a")?.getAttribute("aria-label") ?? ""),
    })));
    for (const { named: [title, text], bars } of shapes) {
      this.note(where, heard.some((node) => node.name === title && node.described.startsWith(text?.slice(0, 20) ?? "?")) ? null : "the drawing has no text beside it");
      const unheard = bars.filter((bar) => !bar || !names.has(bare(bar)));
      this.note(where, unheard.length ? `${unheard.length} of ${bars.length} bars and marks are not told of, such as ${JSON.stringify(unheard[0])}` : null);
    }
    const tables = await window.evaluate(() => Object.fromEntries([...document.querySelectorAll("section:has(table)")].map((section) => [
      section.querySelector("h2").id, [...section.querySelectorAll("tbody tr")].map((row) => row.textContent),
    ])));
    const { said } = this.page;
    const text = await window.evaluate(() => document.body.textContent);
    for (const finding of said.findings) {
      if (!text.includes(shown(finding.message))) this.note(where, `a finding is missing: ${finding.message.slice(0, 80)}`);
    }
    if (this.page.kind !== "trace") return;
    const rows = { runs: said.runs.map((run) => run.id), states: said.states.map((state) => state.name), leases: said.leases.map((lease) => lease.id), timeline: said.timeline.map((item) => item.event) };
    for (const [name, ids] of Object.entries(rows)) {
      const have = tables[name] ?? [];
      this.note(where, have.length === ids.length ? null : `the table of ${name} has ${have.length} rows for ${ids.length}`);
      const missing = ids.find((id, at) => !have[at]?.includes(shown(id)));
      this.note(where, missing === undefined || have.length !== ids.length ? null : `the table of ${name} does not have ${missing}`);
    }
  }

  /** axe-core, in a window that could run scripts: what it brings is the only one that does. */
  async accessible(schemes) {
    const window = await this.open({});
    await window.evaluate(({ rows, pictures }) => {
      const more = `tbody tr:nth-child(n + ${rows + 1}), svg.drawing:nth-of-type(n + ${pictures + 1}), ol.findings li:nth-child(n + ${rows + 1})`;
      for (const element of document.querySelectorAll(more)) element.remove();
      // Links to what was just taken away.
      for (const link of document.querySelectorAll("a[href]")) if (!document.querySelector(link.getAttribute("href"))) link.setAttribute("href", "#findings");
    }, ALIKE);
    await window.evaluate(this.tools.axe);
    for (const colorScheme of schemes) {
      await window.emulateMedia({ colorScheme });
      for (const viewport of [WIDE, NARROW]) {
        await window.setViewportSize(viewport);
        // In the dark all is the same but the colours.
        if (colorScheme === "dark" && viewport === NARROW) continue;
        const rules = colorScheme === "dark" ? { runOnly: ["color-contrast"] } : {};
        const { violations } = await window.evaluate((rules) => globalThis.axe.run(document, { ...rules, resultTypes: ["violations"] }), rules);
        const where = `axe, ${colorScheme} ${viewport.width} px`;
        for (const { id, help, nodes } of violations) this.note(where, `${id}: ${help}: ${nodes.length} times, such as ${nodes[0].html.slice(0, 160)} ${nodes[0].failureSummary.split("\n").at(-1)}`);
      }
    }
    this.note("as it is", (await window.title()).startsWith("Tenure: ") ? null : "a script ran: its title is another");
    await window.context().close();
  }

  /** On paper: all that is found can be read there, and nothing is cut off at the edge. */
  async printed() {
    const window = await this.open({ colorScheme: "dark", javaScriptEnabled: false, viewport: PAPER });
    await window.emulateMedia({ media: "print" });
    this.note("in print", await window.evaluate(judge.overflows, true));
    this.note("in print", await window.evaluate(judge.drawing));
    this.note("in print", await window.evaluate(judge.contrast));
    await this.shoot(window, "print");
    const file = path.join(SHOTS, `${this.page.name}.pdf`);
    const bytes = await window.pdf({ path: file, preferCSSPageSize: true });
    await window.context().close();
    const document = await this.tools.pdf.getDocument({ data: new Uint8Array(bytes), verbosity: 0 }).promise;
    let text = "";
    for (let sheet = 1; sheet <= Math.min(document.numPages, SHEETS); sheet += 1) {
      const { items } = await (await document.getPage(sheet)).getTextContent();
      text += items.map((item) => item.str).join("");
    }
    // Glyphs of a script that is written from the right come in another order, and lines break anywhere.
    const bare = (of) => of.replace(/[^\x21-\x7e]/g, "");
    this.note("in print", document.numPages > 0 && text.length > 50 ? null : "the PDF has no text");
    for (const { message } of this.page.said.findings.slice(0, 10)) {
      if (/[^\x20-\x7e]/.test(message)) continue;
      if (!bare(text).includes(bare(message))) this.note("in print", `the PDF does not say: ${message.slice(0, 80)}`);
    }
    this.sheets = document.numPages;
    await document.destroy();
  }

  /** By keyboard: in order, in sight, marked; and a link leads to where it says. */
  async walked() {
    const where = "by keyboard";
    const window = await this.open({ javaScriptEnabled: false });
    let last = -1;
    for (let tab = 0; tab < TABS; tab += 1) {
      await window.keyboard.press("Tab");
      const at = await window.evaluate(judge.focused);
      if (!at) {
        this.note(where, last + 1 < 1 ? "there is nothing to come to" : null);
        break;
      }
      this.note(where, at.place === last + 1 ? null : `after place ${last} comes ${at.place} of ${at.of}: ${at.what}`);
      this.note(where, at.seen ? null : `${at.what} is not in the window`);
      this.note(where, at.marked ? null : `${at.what} looks as if it were not there`);
      if (at.place <= last) break;
      last = at.place;
      if (this.wrong.length > 20) break;
    }
    const links = await window.evaluate(() => [...document.querySelectorAll("a[href]")].map((link) => link.getAttribute("href")));
    const some = links.filter((_, at) => at < 6 || at % Math.ceil(links.length / 8) === 0);
    for (const to of new Set(some)) {
      await window.evaluate((to) => document.querySelector(`a[href="${to}"]`).focus(), to);
      await window.keyboard.press("Enter");
      const hash = await window.evaluate(() => location.hash);
      this.note(where, hash === to ? await window.evaluate(judge.arrived) : `a link to ${to} leads to ${hash}`);
    }
    await window.context().close();
  }
}

/** Text of others as the page shows it. */
function shown(text) {
  return text.replace(/[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

async function main(only) {
  const started = Date.now();
  const seconds = () => `${((Date.now() - started) / 1000).toFixed(1)} s`;
  const tools = await parts();
  if (!only.length) fs.rmSync(SHOTS, { recursive: true, force: true });
  for (const folder of [SHOTS, PAGES]) fs.mkdirSync(folder, { recursive: true });
  const cases = [...generate(path.join(TARGET, "logs")), ...real()];
  const pages = cases.flatMap((one) => ["trace", "report"].map((kind) => render(one, kind)))
    .filter((page) => !only.length || only.some((part) => page.name.includes(part)));
  if (!pages.length) throw new Error(`no page is named like ${only.join(" or ")}`);
  const browser = await tools.playwright.chromium.launch(tools.launch);
  const wrong = [];
  try {
    const queue = [...pages];
    const worker = async () => {
      for (let page = queue.shift(); page; page = queue.shift()) {
        const began = Date.now();
        const check = new Check(tools, browser, page);
        try {
          wrong.push(...(await check.all()));
        } catch (error) {
          wrong.push(`${page.name}: ${error.stack}`);
        }
        console.error(`browser: ${page.name}: ${check.wrong.length ? `${check.wrong.length} defects` : "well"}, ${check.sheets} sheets, ${((Date.now() - began) / 1000).toFixed(1)} s`);
      }
    };
    await Promise.all([worker(), worker()]);
  } finally {
    await browser.close();
  }
  for (const one of wrong) console.error(one);
  console.error(`browser: ${pages.length} pages, ${wrong.length} defects, ${seconds()}; pictures are in ${path.relative(PROJECT, SHOTS)}`);
  return wrong.length ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(`browser: ${error.message}`);
  process.exitCode = 1;
}
