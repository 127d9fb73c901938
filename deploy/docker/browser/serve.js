// Runs one Chromium for signers to use: a Playwright server, over WebSocket, with each signer's contexts its own.
//
//     node serve.js PLAYWRIGHT CONFIG
//
// PLAYWRIGHT is the driver's package, CONFIG what its launchServer takes (browser.json). The process ends when
// Chromium has ended, or has not opened a page for 15 seconds, so that whatever runs it starts another.
"use strict";

const { readFileSync } = require("node:fs");

const [playwright, config] = process.argv.slice(2);
const PAUSE = 10_000;
const PATIENCE = 15_000;

function end(why) {
  console.error(`ending: ${why}`);
  process.exit(1);
}

async function prove(browser) {
  const patience = setTimeout(end, PATIENCE, "the browser opens no page");
  const page = await browser.newPage();
  await page.evaluate("1 + 1");
  await page.close();
  clearTimeout(patience);
}

async function main() {
  const { chromium } = require(playwright);
  const options = JSON.parse(readFileSync(config, "utf8"));
  const server = await chromium.launchServer(options);
  server.on("close", () => end("the browser has ended"));
  const browser = await chromium.connect(`ws://127.0.0.1:${options.port}/`);
  await prove(browser);
  console.log(`serving ${browser.version()} on port ${options.port}`);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    await prove(browser);
  }
}

main().catch((error) => end(error));
