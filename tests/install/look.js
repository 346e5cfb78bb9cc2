// Look at a page as Chromium shows it: axe's findings, what it asked for, and pictures. Prints one JSON document.
//
//     node look.js PAGE FOLDER

const { chromium } = require("playwright-core");
const [page, folder] = process.argv.slice(2);
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

async function look(browser, width, colorScheme) {
  // The page's own policy would refuse axe: it is a script.
  const tab = await browser.newPage({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
  const asked = [];
  const written = [];
  tab.on("request", (request) => asked.push(request.url()));
  tab.on("console", (message) => written.push(message.text()));
  await tab.goto(`file://${page}`);
  await tab.screenshot({ path: `${folder}/${width}-${colorScheme}.png`, fullPage: true });
  const folded = await overflow(tab);
  await tab.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
  const overflows = Math.max(folded, await overflow(tab));
  const ground = await tab.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await tab.addScriptTag({ path: require.resolve("axe-core") });
  const { violations, passes } = await tab.evaluate((values) => axe.run(document, { runOnly: values }), RULES);
  await tab.close();
  const findings = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
  return { width, colorScheme, asked, written, overflows, ground, findings, passes: passes.length };
}

const overflow = (tab) => tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);

async function print(browser) {
  const tab = await browser.newPage({ colorScheme: "dark" });
  const written = [];
  tab.on("console", (message) => written.push(message.text()));
  await tab.goto(`file://${page}`);
  await tab.emulateMedia({ media: "print", colorScheme: "dark" });
  const ground = await tab.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue("--ground"));
  await tab.pdf({ path: `${folder}/page.pdf`, preferCSSPageSize: true });
  await tab.close();
  return { ground: ground.trim(), written };
}

(async () => {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  const looks = [];
  for (const width of [390, 820, 1440]) {
    for (const colorScheme of ["light", "dark"]) looks.push(await look(browser, width, colorScheme));
  }
  const printed = await print(browser);
  await browser.close();
  console.log(JSON.stringify({ looks, printed }));
})();
