// Builds the console into dist/: one page, one script, one style sheet, an icon and the licences of what the
// script contains. Script and style sheet are named by their content, so that they may be cached for ever.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = join(here, "dist");

await rm(out, { recursive: true, force: true });
await mkdir(out);

const result = await build({
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx", style: "src/styles/index.css" },
  entryNames: "[name]-[hash]",
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // licences.txt has them whole
  metafile: true,
  logLevel: "warning",
});

const names = {};
for (const [path, { entryPoint }] of Object.entries(result.metafile.outputs)) {
  if (entryPoint) names[entryPoint] = basename(path);
}
const page = await readFile(join(here, "src/index.html"), "utf8");
const html = page
  .replace("{{script}}", names["src/main.tsx"])
  .replace("{{style}}", names["src/styles/index.css"]);
if (html.includes("{{") || html.includes("undefined")) throw new Error("index.html is not filled in");
await writeFile(join(out, "index.html"), html);
await copyFile(join(here, "src/icon.svg"), join(out, "icon.svg"));
await writeFile(join(out, "licences.txt"), await licences(Object.keys(result.metafile.inputs)));

/** The licence of every package whose code is in the script, and the notices within that code. */
async function licences(inputs) {
  const packages = new Map();
  for (const path of inputs) {
    const name = path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
    if (!name) continue;
    const notices = packages.get(name) ?? new Set();
    const head = (await readFile(join(here, path), "utf8")).match(/^(?:\/\/.*\n)+/)?.[0] ?? "";
    if (/redistribution/i.test(head)) notices.add(head.replaceAll(/^\/\/ ?/gm, "").trim());
    packages.set(name, notices);
  }
  const parts = [];
  for (const [name, notices] of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|notice)/i.test(file));
    const texts = await Promise.all(files.map((file) => readFile(join(folder, file), "utf8")));
    parts.push([`${name} ${version}: ${license}`, ...texts, ...notices].join("\n\n").trimEnd());
  }
  parts.push(await readFile(join(here, "../LICENSE"), "utf8")); // ours, and the text of every Apache-2.0 above
  return parts.join(`\n\n${"-".repeat(78)}\n\n`);
}
