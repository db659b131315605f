// Charts as plain SVG: few, small, in the page's colours, each with a table or a sentence that says the same.
import { useEffect, useRef, useState } from 'react';

import { count, plural, short } from './format';

export interface Point {
  at: string;
  size: number;
}

/** The width of an element, as it changes. */
function useWidth() {
  const ref = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(640);
  useEffect(() => {
    if (!ref.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(200, entry.contentRect.width)));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return { ref, width };
}

export function Sparkline({ points }: { points: Point[] }) {
  if (points.length < 2) return <span className="faint">–</span>;
  const sizes = points.map((point) => point.size);
  const low = Math.min(...sizes);
  const range = Math.max(1, Math.max(...sizes) - low);
  const x = (index: number) => 2 + (76 * index) / (points.length - 1);
  const y = (size: number) => 20 - (16 * (size - low)) / range;
  return (
    <svg className="spark" width="80" height="24" role="img" aria-label={`From ${count(sizes[0])} to ${count(sizes[sizes.length - 1])} in ${plural(points.length, 'run')}`}>
      <polyline fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round" points={points.map((point, index) => `${x(index)},${y(point.size)}`).join(' ')} />
      <circle cx={x(points.length - 1)} cy={y(sizes[sizes.length - 1])} r="2.2" fill="currentColor" />
    </svg>
  );
}

const HEIGHT = 190;
const LEFT = 52;
const BOTTOM = 24;
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** A round step that gives about `wanted` lines over `range`. */
function step(range: number, wanted: number): number {
  const rough = Math.max(1, range / wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
}

/** A size over time; from zero, so that a slope is not larger than it is. */
export function SizeChart({ points }: { points: Point[] }) {
  const { ref, width } = useWidth();
  if (points.length === 0) return null;
  const times = points.map((point) => Date.parse(point.at));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const gap = step(Math.max(1, ...points.map((point) => point.size)), 4);
  const top = Math.ceil(Math.max(1, ...points.map((point) => point.size)) / gap) * gap;
  const x = (time: number) => LEFT + ((width - LEFT - 12) * (time - first)) / Math.max(1, last - first);
  const y = (size: number) => 10 + (HEIGHT - BOTTOM - 10) * (1 - size / top);
  const line = points.map((point, index) => `${x(times[index])},${y(point.size)}`);
  const labels = Math.max(2, Math.min(points.length, Math.floor(width / 120)));
  return (
    <div ref={ref}>
      <svg className="chart" width={width} height={HEIGHT} role="img" aria-label={`Size over time: from ${count(points[0].size)} to ${count(points[points.length - 1].size)}; the table below has the numbers`}>
        {Array.from({ length: Math.round(top / gap) + 1 }, (_, index) => (
          <g key={index}>
            <line className="grid" x1={LEFT} x2={width - 12} y1={y(index * gap)} y2={y(index * gap)} />
            <text x={LEFT - 8} y={y(index * gap) + 4} textAnchor="end">{short(index * gap)}</text>
          </g>
        ))}
        <polygon className="area" points={[`${x(first)},${y(0)}`, ...line, `${x(last)},${y(0)}`].join(' ')} />
        <polyline className="line" points={line.join(' ')} />
        {points.map((point, index) => (
          <circle key={index} className="bar" cx={x(times[index])} cy={y(point.size)} r={points.length > 60 ? 1.5 : 3}><title>{`${day.format(times[index])}: ${count(point.size)}`}</title></circle>
        ))}
        {Array.from({ length: labels }, (_, index) => {
          const time = first + ((last - first) * index) / Math.max(1, labels - 1);
          return <text key={index} x={x(time)} y={HEIGHT - 6} textAnchor={index === 0 ? 'start' : index === labels - 1 ? 'end' : 'middle'}>{last > first || index === 0 ? day.format(time) : ''}</text>;
        })}
      </svg>
    </div>
  );
}

export interface Range {
  low: string;
  high: string;
  count: number;
}

/** How many values lie in each of some ranges of equal width, from zero; a table says the same. */
export function Histogram({ name, buckets }: { name: string; buckets: Range[] }) {
  const { ref, width } = useWidth();
  const gap = step(Math.max(1, ...buckets.map((bucket) => bucket.count)), 4);
  const top = Math.ceil(Math.max(1, ...buckets.map((bucket) => bucket.count)) / gap) * gap;
  const wide = (width - LEFT - 12) / buckets.length;
  const y = (size: number) => 10 + (HEIGHT - BOTTOM - 10) * (1 - size / top);
  return (
    <div ref={ref} className="stack tight">
      <svg className="chart" width={width} height={HEIGHT} role="img" aria-label={`Histogram of ${name}; the table below has the numbers`}>
        {Array.from({ length: Math.round(top / gap) + 1 }, (_, index) => (
          <g key={index}>
            <line className="grid" x1={LEFT} x2={width - 12} y1={y(index * gap)} y2={y(index * gap)} />
            <text x={LEFT - 8} y={y(index * gap) + 4} textAnchor="end">{short(index * gap)}</text>
          </g>
        ))}
        {buckets.map((bucket, index) => (
          <rect key={index} className="bar" x={LEFT + index * wide + 1} width={Math.max(1, wide - 2)} y={y(bucket.count)} height={y(0) - y(bucket.count)}><title>{`${bucket.low} to ${bucket.high}: ${count(bucket.count)}`}</title></rect>
        ))}
        <text x={LEFT} y={HEIGHT - 6}>{buckets[0].low}</text>
        <text x={width - 12} y={HEIGHT - 6} textAnchor="end">{buckets[buckets.length - 1].high}</text>
      </svg>
      <details>
        <summary className="muted">As a table</summary>
        <table>
          <thead><tr><th scope="col">From</th><th scope="col">Below</th><th scope="col" className="right">People</th></tr></thead>
          <tbody>{buckets.map((bucket, index) => <tr key={index}><td>{bucket.low}</td><td>{bucket.high}</td><td className="right">{count(bucket.count)}</td></tr>)}</tbody>
        </table>
      </details>
    </div>
  );
}
