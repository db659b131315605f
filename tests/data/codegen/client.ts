// Compiles with the scalars of the clients' page only: with others a type differs, or an expected error is missing.
import { ApolloClient, HttpLink, InMemoryCache } from '@apollo/client';

import { AudienceSizesDocument, UploadDocument } from './operations';

const client = new ApolloClient({ link: new HttpLink({ uri: '/graphql' }), cache: new InMemoryCache() });
const { data } = await client.query({ query: AudienceSizesDocument, variables: { first: 10, asOf: '2026-06-15T12:00:00Z' } });
for (const { node } of data?.audiences.edges ?? []) {
  const id: string = node.id;
  const created: string = node.createdAt;
  const size: number | undefined = node.metrics?.totalProfiles;
  const attributes: unknown = node.members.nodes[0].profile.attributes;
  // @ts-expect-error A moment is a text, until somebody makes a Date of it.
  const moment: Date = node.createdAt;
  // @ts-expect-error A count is a number.
  const text: string | undefined = node.metrics?.totalProfiles;
  // @ts-expect-error What a profile holds has to be looked at first.
  const city: string = node.members.nodes[0].profile.attributes.city;
  console.log(id, created, size, attributes, moment, text, city);
}
const file = new File(['customer\n001\n'], 'people.csv');
await client.mutate({ mutation: UploadDocument, variables: { input: { datasetId: 'people', file, format: 'CSV' } } });
// @ts-expect-error A file is no text.
await client.mutate({ mutation: UploadDocument, variables: { input: { datasetId: 'people', file: 'people.csv', format: 'CSV' } } });
