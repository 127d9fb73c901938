// A stand-in for tests and measurements: our own, and no platform's. It "signs" a text with a keyed
// digest that the tests compute as well (standin.py). What `standin=` in the text says, it does:
//   throw, hang, late (answers after a minute), promise (answers in a moment), leak (keeps 1 MiB),
//   crash (fills its memory), rubbish, empty, number, long, taken (names a parameter of the URL),
//   cyclic, reach:<port> (tries every way out that it knows)
(() => {
  const KEY = 0x5167a7e5;
  const kept = [];

  const lane = (text, seed) => {
    let hash = (KEY ^ seed) >>> 0;
    for (let i = 0; i < text.length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0;
    }
    return hash.toString(16).padStart(8, "0");
  };
  const digest = (text) => lane(text, 1) + lane(text, 2) + lane(text, 3);

  const reach = (port) => {
    const host = `127.0.0.1:${port}`;
    const tries = [
      () => fetch(`http://${host}/fetch`, { mode: "no-cors" }),
      () => fetch(`https://${host}/fetch`, { mode: "no-cors" }),
      () => fetch("https://www.tiktok.com/api/"),
      () => navigator.sendBeacon(`http://${host}/beacon`, "x"),
      () => new WebSocket(`ws://${host}/socket`),
      () => new EventSource(`http://${host}/events`),
      () => new WebTransport(`https://${host}/transport`),
      () => new Worker(URL.createObjectURL(new Blob([`fetch("http://${host}/worker")`]))),
      () => navigator.serviceWorker.register("/signgate/script.js"),
      () => window.open(`http://${host}/popup`),
      () => {
        const request = new XMLHttpRequest();
        request.open("GET", `http://${host}/xhr`);
        request.send();
      },
      () => {
        const peer = new RTCPeerConnection({ iceServers: [{ urls: `stun:${host}` }] });
        peer.createDataChannel("x");
        peer.createOffer().then((offer) => peer.setLocalDescription(offer));
      },
      () => {
        const html = `<img src="http://${host}/img"><iframe src="http://${host}/frame"></iframe>
          <link rel="stylesheet" href="http://${host}/css"><link rel="prefetch" href="http://${host}/pre">
          <link rel="preconnect" href="http://${host}"><link rel="dns-prefetch" href="http://leak.example">
          <video src="http://${host}/video"></video><object data="http://${host}/object"></object>
          <form id="f" action="http://${host}/form"></form>`;
        document.body.insertAdjacentHTML("beforeend", html);
        document.getElementById("f").submit();
      },
      () => {
        const script = document.createElement("script");
        script.src = `http://${host}/script`;
        document.head.append(script);
      },
    ];
    for (const attempt of tries) {
      try {
        const result = attempt();
        if (result && result.catch) result.catch(() => {});
      } catch (error) {
        // Refused at once: as it should be.
      }
    }
  };

  const sign = (given) => {
    const text = typeof given === "string" ? given : given.url + given.method + given.payload + given.userAgent;
    const [, what, detail] = /[?&]?standin=(\w+)(?::(\d+))?/.exec(text) || [];
    const answer = { "X-Bogus": digest(text) };
    switch (what) {
      case "throw": throw new RangeError(`a text with a secret: ${text}`);
      case "hang": for (;;);
      case "late": return new Promise((resolve) => setTimeout(resolve, 60000, answer));
      case "promise": return new Promise((resolve) => setTimeout(resolve, 5, answer));
      case "leak": kept.push(new Uint8Array(1024 * 1024).fill(1)); return answer;
      case "crash": for (;;) kept.push(new Array(10000000).fill(kept.length));
      case "rubbish": return { "X-Bogus": { toString: "nonsense" } };
      case "empty": return {};
      case "number": return 7;
      case "long": return { "X-Bogus": "x".repeat(5000) };
      case "newline": return { "X-Bogus": "a\nb" };
      case "taken": return { room_id: "1" };
      case "name": return { "X Bogus&": "x" };
      case "nothing": return undefined;
      case "cyclic": answer.self = answer; return answer;
      case "reach": reach(detail); return answer;
      case "device":
        return {
          agent: navigator.userAgent, platform: navigator.platform, language: navigator.language,
          zone: Intl.DateTimeFormat().resolvedOptions().timeZone, screen: `${screen.width}x${screen.height}`,
          where: location.href, hint: navigator.userAgentData ? navigator.userAgentData.platform : "none",
          visible: document.visibilityState, session: document.cookie || "none",
        };
      default: return answer;
    }
  };

  window.signgateStandIn = { sign, text: digest };
})();
