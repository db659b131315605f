"""Names and cities of people in the demo's shop, by country; invented people with common names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Country:
    """Names and cities of a country, with the largest cities first."""

    code: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    cities: tuple[str, ...]


def _country(code: str, first: str, last: str, cities: str) -> Country:
    return Country(code, tuple(first.split()), tuple(last.split()), tuple(cities.split(", ")))


COUNTRIES = (
    _country(
        "US",
        "Olivia Liam Emma Noah Ava James Sophia Elijah Mia Lucas Grace Henry Zoe Caleb Naomi Marcus",
        "Smith Johnson Williams Brown Garcia Miller Davis Lopez Wilson Anderson Nguyen Thomas Moore Lee Clark Walker",
        "New York, Los Angeles, Chicago, Houston, Seattle, Denver, Boston, Austin",
    ),
    _country(
        "DE",
        "Anna Ben Clara Felix Greta Jonas Lena Lukas Marie Moritz Paula Emil Frieda Anton Jule Till",
        "Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Hoffmann Koch Richter Wolf Neumann Krause Vogel",
        "Berlin, Hamburg, München, Köln, Leipzig, Stuttgart, Dresden, Bremen",
    ),
    _country(
        "FR",
        "Camille Louis Chloé Hugo Inès Jules Léa Gabriel Manon Arthur Jeanne Théo Élise Nathan Zélie Rémi",
        "Martin Bernard Dubois Thomas Robert Petit Durand Leroy Moreau Simon Laurent Michel Garnier Faure Rousseau",
        "Paris, Lyon, Marseille, Toulouse, Nantes, Bordeaux, Lille, Rennes",
    ),
    _country(
        "GB",
        "Amelia Oliver Isla George Poppy Harry Freya Jack Ella Arthur Maisie Theo Harriet Callum Imogen Rhys",
        "Jones Taylor Davies Evans Wilson Roberts Wright Thompson Hughes Green Hall Wood Harris Clarke Patel Khan",
        "London, Manchester, Birmingham, Leeds, Glasgow, Bristol, Cardiff, Edinburgh",
    ),
    _country(
        "IT",
        "Giulia Leonardo Sofia Francesco Aurora Lorenzo Alice Matteo Chiara Davide Elena Marco Marta Paolo Bianca Luca",
        "Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo Conti Costa Fontana",
        "Roma, Milano, Napoli, Torino, Bologna, Firenze, Genova, Verona",
    ),
    _country(
        "JP",
        "Haruto Yui Sota Hina Ren Aoi Yuto Sakura Kaito Mei Riku Akari Haru Rin Daiki Emi",
        "Sato Suzuki Takahashi Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato Yoshida Yamada Sasaki Mori Abe",
        "Tokyo, Osaka, Yokohama, Nagoya, Sapporo, Fukuoka, Kyoto, Kobe",
    ),
    _country(
        "BR",
        "Ana Miguel Beatriz Arthur Larissa Davi Mariana Pedro Júlia Rafael Camila João Letícia Thiago Luana Caio",
        "Silva Santos Oliveira Souza Lima Pereira Ferreira Costa Rodrigues Almeida Nascimento Araújo Ribeiro Rocha",
        "São Paulo, Rio de Janeiro, Brasília, Salvador, Fortaleza, Curitiba, Recife, Porto Alegre",
    ),
    _country(
        "IN",
        "Aarav Ananya Vivaan Diya Aditya Isha Arjun Kavya Rohan Meera Kabir Priya Dev Nisha Vikram Sana",
        "Sharma Verma Patel Singh Gupta Kumar Reddy Iyer Nair Das Mehta Joshi Rao Chopra Bose Menon",
        "Mumbai, Delhi, Bengaluru, Hyderabad, Chennai, Kolkata, Pune, Jaipur",
    ),
    _country(
        "CA",
        "Charlotte Ethan Léa Owen Maya Nathan Alice William Sarah Logan Juliette Émile Hannah Isaac Chloe Gavin",
        "Tremblay Roy Gagnon Campbell MacDonald Bouchard Stewart Martin Reid Fortin Chan Wong Morin Fraser Lavoie",
        "Toronto, Montréal, Vancouver, Calgary, Ottawa, Edmonton, Québec, Halifax",
    ),
    _country(
        "ES",
        "Lucía Hugo Martina Mateo Paula Daniel Carmen Pablo Valeria Álvaro Alba Diego Noa Adrián Irene Iker",
        "García Rodríguez González Fernández López Martínez Sánchez Pérez Gómez Ruiz Díaz Moreno Muñoz Romero Navarro",
        "Madrid, Barcelona, Valencia, Sevilla, Zaragoza, Málaga, Bilbao, Granada",
    ),
)
