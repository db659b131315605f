// Where the time of a segment job went: reading, evaluating, the rest, and the slowest buckets.
import type { SegmentJobPageQuery } from '../api/operations';
import { duration, plural } from '../ui/format';
import { Bars, Figure } from '../ui/pieces';

type Metrics = NonNullable<NonNullable<SegmentJobPageQuery['segmentJob']>['metrics']>;

export function Durations({ times }: { times: NonNullable<Metrics['bucketTime']> }) {
  const { buckets, totalMs, readingMs, evaluatingMs, slowest } = times;
  return (
    <section className="card stack" aria-labelledby="durations">
      <h2 id="durations">Where the time went</h2>
      <div className="figures">
        <Figure name="Reading people and events" value={duration(readingMs)} />
        <Figure name="Evaluating audiences" value={duration(evaluatingMs)} />
        <Figure name="Comparing members" value={duration(totalMs - readingMs - evaluatingMs)} />
        <Figure name={`All ${plural(buckets, 'bucket')}`} value={duration(totalMs)} />
      </div>
      <p className="muted">People are divided into buckets, which are evaluated side by side, so that these times together can be longer than the job took.</p>
      <h3>Slowest buckets</h3>
      <Bars
        text={duration}
        items={slowest.map(({ bucket, profiles, totalMs }) => ({
          key: String(bucket), name: `Bucket ${bucket} · ${plural(profiles, 'person', 'people')}`, count: totalMs,
        }))}
      />
    </section>
  );
}
