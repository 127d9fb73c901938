/** A bar chart of signed and refused requests; the same numbers stand in a table for those who listen. */
import { useEffect, useRef, useState } from "preact/hooks";
import { count, milliseconds } from "../format.ts";

export interface Bar {
  label: string;
  signed: number;
  refused: number;
  /** Milliseconds. */
  p95: number;
}

const LABEL = 46;
const LEAST = 240;
const HEIGHT = 160;
const LEFT = 36;
const BOTTOM = 22;
const TOP = 8;

/** As wide as there is room; a label stands wherever it does not touch the one before. */
export function Chart({ bars, caption }: { bars: Bar[]; caption: string }) {
  const figure = useRef<HTMLElement>(null);
  const width = useWidth(figure);
  const most = ceiling(Math.max(...bars.map((bar) => bar.signed + bar.refused), 1));
  const step = (width - LEFT) / bars.length;
  const every = spacing(LABEL / step);
  const scale = (value: number) => (value / most) * (HEIGHT - BOTTOM - TOP);
  const floor = HEIGHT - BOTTOM;
  return (
    <figure class="chart" ref={figure}>
      <svg width={width} height={HEIGHT} aria-hidden="true">
        {[0, most / 2, most].map((value) => (
          <g key={value}>
            <line class="grid" x1={LEFT} x2={width} y1={floor - scale(value)} y2={floor - scale(value)} />
            <text x={LEFT - 8} y={floor - scale(value) + 4} text-anchor="end">{count(value)}</text>
          </g>
        ))}
        {bars.map((bar, index) => {
          const x = LEFT + index * step + step * 0.15;
          const [signed, refused] = [scale(bar.signed), scale(bar.refused)];
          return (
            <g key={bar.label}>
              <title>
                {`${bar.label}: ${count(bar.signed)} signed, ${count(bar.refused)} refused`}
                {bar.signed + bar.refused ? `, p95 ${milliseconds(bar.p95)}` : ""}
              </title>
              <rect class="hover" x={LEFT + index * step} y={TOP} width={step} height={floor - TOP} />
              <rect class="signed" x={x} y={floor - signed} width={step * 0.7} height={signed} rx={1.5} />
              <rect class="refused" x={x} y={floor - signed - refused} width={step * 0.7} height={refused} rx={1.5} />
              {index % every === 0 && (
                <text x={LEFT + (index + 0.5) * step} y={HEIGHT - 6} text-anchor="middle">{bar.label}</text>
              )}
            </g>
          );
        })}
      </svg>
      <figcaption>
        <span class="key signed" /> signed <span class="key refused" /> refused <span class="fine">{caption}</span>
      </figcaption>
      <table class="unseen">
        <caption>{caption}</caption>
        <thead><tr><th>Time</th><th>Signed</th><th>Refused</th></tr></thead>
        <tbody>
          {bars.filter((bar) => bar.signed + bar.refused).map((bar) => (
            <tr key={bar.label}><th>{bar.label}</th><td>{bar.signed}</td><td>{bar.refused}</td></tr>
          ))}
        </tbody>
      </table>
    </figure>
  );
}

/** How many bars go to a label: at least so many. */
function spacing(least: number): number {
  return [1, 2, 3, 6, 12].find((bars) => bars >= least) ?? 24;
}

/** The element's width in pixels, now and later. */
function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(LEAST);
  useEffect(() => {
    if (!element.current) return;
    const watcher = new ResizeObserver(([entry]) => entry && setWidth(Math.max(LEAST, Math.floor(entry.contentRect.width))));
    watcher.observe(element.current);
    return () => watcher.disconnect();
  }, []);
  return width;
}

/** The next even round number: the axis has its half as well. */
function ceiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const nice = [2, 4, 6, 8, 10].map((factor) => factor * power).find((candidate) => candidate >= value);
  return nice ?? 10 * power;
}
