// A list that grows page by page (@connection), refetched with other variables (@refetchable).
import { graphql } from "relay-runtime";

export const query = graphql`
  query DefinitionsQuery($first: Int!, $filter: SegmentDefinitionFilter) {
    ...Definitions_list @arguments(first: $first, filter: $filter)
  }
`;

export const list = graphql`
  fragment Definitions_list on Query
  @refetchable(queryName: "DefinitionsPageQuery")
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" }, filter: { type: "SegmentDefinitionFilter" }) {
    segmentDefinitions(first: $first, after: $after, filter: $filter) @connection(key: "Definitions_segmentDefinitions") {
      edges { node { id ...Definitions_row } }
    }
  }
`;

export const row = graphql`
  fragment Definitions_row on SegmentDefinition {
    name
    expression
    evaluationMethods
    streamingEligibility { eligible reasons }
    audience { lifecycleState metrics { totalProfiles byNamespace { namespace count } } }
    jobs(first: 3) { nodes { status progress { fraction } finishedAt } }
  }
`;
