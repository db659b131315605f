// Starts a job and follows it.
import { graphql } from "relay-runtime";

export const start = graphql`
  mutation JobWatchStartMutation($input: CreateSegmentJobInput!) {
    createSegmentJob(input: $input) {
      job { id ...JobWatch_job }
      errors { code message path ... on ExpressionError { diagnostics { kind message line column length } } }
    }
  }
`;

export const watch = graphql`
  subscription JobWatchSubscription($id: ID!, $after: Int) {
    segmentJobUpdated(id: $id, after: $after) { ...JobWatch_job }
  }
`;

export const job = graphql`
  fragment JobWatch_job on Job {
    jobId
    status
    progress { phase fraction profilesRead totalProfiles estimatedSecondsLeft sequence }
    errors { code message definition { name } }
  }
`;
