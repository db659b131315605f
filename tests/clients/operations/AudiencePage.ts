// One audience by its global id, its members page by page, and its refetch through `node`.
import { graphql } from "relay-runtime";

export const query = graphql`
  query AudiencePageQuery($id: ID!) {
    node(id: $id) { __typename ...AudiencePage_audience @alias(as: "audience") }
  }
`;

export const audience = graphql`
  fragment AudiencePage_audience on Audience
  @refetchable(queryName: "AudiencePageMembersQuery")
  @argumentDefinitions(first: { type: "Int", defaultValue: 50 }, after: { type: "String" }) {
    name
    dependencies(first: 10) { totalCount nodes { name } }
    members(first: $first, after: $after) @connection(key: "AudiencePage_members") {
      edges { node { status lastQualificationTime profile { profileId attributes(paths: ["person.name"]) } } }
    }
  }
`;
