// Installs the browser and what drives it, once for each content of the lock file, below target/browser: from the npm
// registry alone, without a package's own scripts, and with nothing unpacked anywhere else.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

export const HERE = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
export const PROJECT = path.resolve(HERE, "../..");
export const TARGET = path.join(PROJECT, "target/browser");

const PINS = ["package.json", "package-lock.json"];

/** Where everything is, and installs it if it is not: a folder that exists is complete, it was renamed into place. */
export async function parts() {
  const digest = createHash("sha256");
  for (const file of [...PINS, "parts.mjs"]) digest.update(fs.readFileSync(path.join(HERE, file)));
  digest.update(`${process.platform} ${process.arch}`);
  const root = path.join(TARGET, `parts-${digest.digest("hex").slice(0, 12)}`);
  if (!fs.existsSync(root)) {
    fs.mkdirSync(TARGET, { recursive: true });
    // Two at once do not meet: each has its own scratch folder, and the second to be done drops it.
    const scratch = fs.mkdtempSync(`${root}.partial-`);
    try {
      await install(scratch);
      try {
        fs.renameSync(scratch, root);
      } catch (error) {
        if (!fs.existsSync(root)) throw error;
      }
    } finally {
      fs.rmSync(scratch, { recursive: true, force: true });
    }
    for (const other of fs.readdirSync(TARGET)) {
      if (/^parts-[0-9a-f]{12}$/.test(other) && other !== path.basename(root)) {
        fs.rmSync(path.join(TARGET, other), { recursive: true, force: true });
      }
    }
  }
  const require = createRequire(path.join(root, "package.json"));
  return {
    playwright: require("playwright-core"),
    pdf: await readerOfPdf(require),
    axe: fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"),
    launch: {
      executablePath: path.join(root, "chromium"),
      chromiumSandbox: false,
      args: ["--disable-gpu", "--font-render-hinting=none", "--force-color-profile=srgb"],
      env: {
        // No font of this machine: the same page looks the same everywhere.
        FONTCONFIG_FILE: fontConfig(root),
        LD_LIBRARY_PATH: path.join(root, "al2023/lib"),
        HOME: path.join(root, "home"),
        TZ: "UTC",
        PATH: process.env.PATH ?? "",
      },
    },
  };
}

/** It wants classes of a browser as soon as it is loaded; to read text none of them is used. */
async function readerOfPdf(require) {
  for (const name of ["DOMMatrix", "ImageData", "Path2D"]) globalThis[name] ??= class {};
  const { warn } = console;
  console.warn = () => {};
  try {
    return await import(require.resolve("pdfjs-dist/legacy/build/pdf.mjs"));
  } finally {
    console.warn = warn;
  }
}

async function install(root) {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`Node ${process.versions.node} is too old: install Node 20.19 or newer`);
  }
  console.error("browser: installing it (about 100 MB of packages)");
  for (const file of PINS) fs.copyFileSync(path.join(HERE, file), path.join(root, file));
  // The driver's package has no browser in it and fetches none by itself; this says so again.
  const env = { ...process.env, PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD: "1", PUPPETEER_SKIP_DOWNLOAD: "1" };
  const words = ["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error", "--no-update-notifier"];
  try {
    execFileSync("npm", words, { cwd: root, env, stdio: ["ignore", 2, 2] });
  } catch (error) {
    throw new Error(`\`npm ${words.join(" ")}\` in tests/browser failed: ${error.message}`);
  }
  const packed = path.join(root, "node_modules/@sparticuz/chromium/bin");
  const { extract } = createRequire(path.join(root, "package.json"))("tar-fs");
  const unpack = (name, to) =>
    pipeline(fs.createReadStream(path.join(packed, name)), createBrotliDecompress({ chunkSize: 1 << 21 }), to);
  await Promise.all([
    unpack("chromium.br", fs.createWriteStream(path.join(root, "chromium"), { mode: 0o755 })),
    // The libraries that the browser needs, where the machine has none of them.
    unpack("al2023.tar.br", extract(path.join(root, "al2023"))),
  ]);
  fs.rmSync(packed, { recursive: true });
}

/** It names folders, so that it is written anew for each place that the parts lie in. */
function fontConfig(root) {
  const file = path.join(root, "fonts.conf");
  const fonts = path.join(root, "node_modules/dejavu-fonts-ttf/ttf");
  const text = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>${fonts}</dir><cachedir>${path.join(root, "fonts")}</cachedir>
<selectfont><rejectfont><glob>*/DejaVuSerif*</glob><glob>*/DejaVuMath*</glob></rejectfont></selectfont>
<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<alias><family>ui-monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
`;
  if (!fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text) fs.writeFileSync(file, text);
  return file;
}
